// What import-nuclei.groovy uses of QuPath, reduced to what the test looks at.
package qupath.lib.images

class ImageData {
    enum ImageType { UNSET, BRIGHTFIELD_H_E, BRIGHTFIELD_H_DAB }

    def server
    ImageType imageType
}
