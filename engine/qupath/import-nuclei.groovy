/*
 * Import the nuclei that nuclix found into the open image; with "Run for project", into every image of a project.
 *
 * The result is found by the image's file, not by its name in the project: images may be renamed or masked.
 * Objects that nuclix imported before are replaced. All other objects, and the image's type, are left alone.
 * For QuPath 0.4 to 0.7. Written by `nuclix qupath`, which writes it again: save changes under another name.
 */
import groovy.json.JsonSlurper
import qupath.lib.images.ImageData
import qupath.lib.io.PathIO

// The index of nuclix' results. After moving the results, change this path.
def INDEX = '@INDEX@'
// A type for images that have none yet, such as 'BRIGHTFIELD_H_E'; '' leaves them without.
def IMAGE_TYPE = '@IMAGE_TYPE@'
// Whether to put the nuclei under the annotations that contain them: with a million nuclei, 11 s for one annotation
// and about a minute for a hundred.
def RESOLVE_HIERARCHY = @RESOLVE_HIERARCHY@

// nuclix names objects by UUIDs of these versions; QuPath and its extensions draw random ones, which have version 4.
def NUCLIX_ID_VERSIONS = [5, 8]

def fileOf = { text ->
    def uri = new URI(text.toString())
    uri.path == null ? text.toString() : new File(uri.path).canonicalPath
}

def imageData = getCurrentImageData()
if (imageData == null) {
    println 'nuclix: NOTHING IMPORTED: no image is open'
    return
}
def server = imageData.getServer()
def entry = getProjectEntry()
def title = entry == null ? server.getMetadata().getName() : entry.getImageName()
def indexFile = new File(INDEX)
if (!indexFile.isFile()) {
    println "nuclix: NOTHING IMPORTED for ${title}: ${INDEX} does not exist; change INDEX in this script"
    return
}

// Find the slide by its file; a slide that was moved, by its file's name and its size in pixels.
def slides = new JsonSlurper().parse(indexFile, 'UTF-8').slides
def files = server.getURIs().collect { fileOf(it) } as Set
def sameSize = { slide -> slide.width == server.getWidth() && slide.height == server.getHeight() }
def slide = slides.find { item -> item.uris.any { fileOf(it) in files } }
if (slide == null) {
    def names = files.collect { new File(it).name } as Set
    def moved = slides.findAll { it.file in names && sameSize(it) }
    if (moved.size() == 1) {
        slide = moved[0]
        println "nuclix: ${title}: taken for ${slide.name}, which has the same file name and size"
    }
}
if (slide == null || slide.result == null) {
    def why = slide == null ? "${INDEX} does not name its file" : 'no GeoJSON or zip was written for it'
    println "nuclix: NOTHING IMPORTED for ${title}: ${why}"
    return
}
if (!sameSize(slide)) {
    println "nuclix: NOTHING IMPORTED for ${title}: it is ${server.getWidth()} x ${server.getHeight()} px here and " +
        "${slide.width} x ${slide.height} px for nuclix, so nuclei would be shifted. " +
        'Open the whole slide with OpenSlide, with the preference "Crop to OpenSlide bounds" on (QuPath 0.7)'
    return
}
def file = new File(indexFile.getParentFile(), slide.result.toString())
if (!file.isFile()) {
    println "nuclix: NOTHING IMPORTED for ${title}: ${file} does not exist"
    return
}

try {
    def objects = PathIO.readObjects(file)
    def own = (getDetectionObjects() as List) + (getAnnotationObjects() as List)
    own = own.findAll { it.getID().version() in NUCLIX_ID_VERSIONS }
    if (own) {
        removeObjects(own, true)
    }
    addObjects(objects)
    if (IMAGE_TYPE && imageData.getImageType() in [null, ImageData.ImageType.UNSET]) {
        setImageType(IMAGE_TYPE)
    }
    if (RESOLVE_HIERARCHY) {
        resolveHierarchy()
    }
    println "nuclix: ${title}: ${objects.size()} objects imported from ${file.name}, ${own.size()} earlier ones replaced"
} catch (OutOfMemoryError error) {
    // Without this, a batch would end here.
    println "nuclix: NOTHING IMPORTED for ${title}: ${file.name} does not fit in QuPath's memory. Raise " +
        'Edit > Preferences > "Set max memory", or write it as a zip: nuclix export OUT --format geojson-zip'
}
