/*
 * Make a QuPath project of all slides that nuclix has finished, and import their nuclei, from inside QuPath.
 *
 * The alternative to `nuclix qupath`, for slides that QuPath opens with other readers than nuclix expects:
 *     QuPath script make-project.groovy --args INDEX --args PROJECT
 * Run again, it adds what is missing and replaces the objects that nuclix imported before. For QuPath 0.4 to 0.7.
 */
import groovy.json.JsonSlurper
import java.awt.image.BufferedImage
import qupath.lib.images.ImageData
import qupath.lib.images.servers.ImageServerProvider
import qupath.lib.io.PathIO
import qupath.lib.projects.ProjectIO
import qupath.lib.projects.Projects

// The index of nuclix' results, and the folder of the project; arguments of the command line come first.
def given = binding.hasVariable('args') && args != null ? args as List : []
def INDEX = given.size() > 0 ? given[0] : '@INDEX@'
def PROJECT = given.size() > 1 ? given[1] : new File(new File(INDEX).getParentFile(), 'qupath-project').path
def IMAGE_TYPE = '@IMAGE_TYPE@'
def RESOLVE_HIERARCHY = @RESOLVE_HIERARCHY@
// nuclix names objects by UUIDs of these versions; QuPath and its extensions draw random ones, which have version 4.
def NUCLIX_ID_VERSIONS = [5, 8]

def fileOf = { text ->
    def uri = new URI(text.toString())
    uri.path == null ? text.toString() : new File(uri.path).canonicalPath
}

def folder = new File(PROJECT.toString())
folder.mkdirs()
def projectFile = new File(folder, 'project.qpproj')
def project = projectFile.isFile()
    ? ProjectIO.loadProject(projectFile, BufferedImage.class)
    : Projects.createProject(folder, BufferedImage.class)
def indexFile = new File(INDEX.toString())
def left = []

for (slide in new JsonSlurper().parse(indexFile, 'UTF-8').slides) {
    def file = slide.result == null ? null : new File(indexFile.getParentFile(), slide.result.toString())
    if (file == null || !file.isFile()) {
        left << "${slide.name}: no result for QuPath"
        continue
    }
    def imageData = null
    try {
        def paths = slide.uris.collect { fileOf(it) }
        def entry = project.getImageList().find { image -> image.getURIs().any { fileOf(it) in paths } }
        if (entry == null) {
            def support = ImageServerProvider.getPreferredUriImageSupport(BufferedImage.class, slide.uris[0].toString())
            if (support == null || support.getBuilders().isEmpty()) {
                left << "${slide.name}: QuPath does not open ${slide.uris[0]}"
                continue
            }
            entry = project.addImage(support.getBuilders()[0])
            entry.setImageName(slide.file.toString())
        }
        imageData = entry.readImageData()
        def server = imageData.getServer()
        if (slide.width != server.getWidth() || slide.height != server.getHeight()) {
            left << "${slide.name}: ${server.getWidth()} x ${server.getHeight()} px in QuPath, " +
                "${slide.width} x ${slide.height} px for nuclix: nuclei would be shifted"
            continue
        }
        def objects = PathIO.readObjects(file)
        def hierarchy = imageData.getHierarchy()
        def own = (hierarchy.getDetectionObjects() as List) + (hierarchy.getAnnotationObjects() as List)
        own = own.findAll { it.getID().version() in NUCLIX_ID_VERSIONS }
        hierarchy.removeObjects(own, true)
        hierarchy.addObjects(objects)
        if (RESOLVE_HIERARCHY) {
            hierarchy.resolveHierarchy()
        }
        if (IMAGE_TYPE && imageData.getImageType() in [null, ImageData.ImageType.UNSET]) {
            imageData.setImageType(ImageData.ImageType.valueOf(IMAGE_TYPE))
        }
        entry.saveImageData(imageData)
        println "nuclix: ${slide.name}: ${objects.size()} objects imported"
    } catch (OutOfMemoryError | Exception error) {
        left << "${slide.name}: ${error}"
    } finally {
        imageData?.getServer()?.close()
    }
}
project.syncChanges()
left.each { println "nuclix: NOTHING IMPORTED for ${it}" }
println "nuclix: ${projectFile}"
