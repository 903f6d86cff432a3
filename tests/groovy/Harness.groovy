// Runs import-nuclei.groovy on made-up images: args are the script and the folder of the index.
import qupath.lib.images.ImageData
import qupath.lib.io.PathIO

abstract class Base extends Script {
    static Object entry
    static ImageData data
    static List detections = [], annotations = []
    static boolean resolved = false

    def getCurrentImageData() { data }
    def getProjectEntry() { entry }
    def getDetectionObjects() { detections }
    def getAnnotationObjects() { annotations }
    def removeObjects(objects, keep) { detections.removeAll(objects); annotations.removeAll(objects) }
    def addObjects(objects) { detections.addAll(objects) }
    def setImageType(name) { data.imageType = ImageData.ImageType.valueOf(name) }
    def resolveHierarchy() { resolved = true }
}

class Item {
    UUID ID
    UUID getID() { ID }
}

class Server {
    String uri
    int width = 40
    int height = 30
    def getURIs() { [new URI(uri)] }
    int getWidth() { width }
    int getHeight() { height }
    def getMetadata() { [getName: { 'image' }] }
}

def folder = new File(args[1]).canonicalPath
def text = new File(args[0]).text
def configuration = new org.codehaus.groovy.control.CompilerConfiguration()
configuration.scriptBaseClass = Base.name
def shell = new GroovyShell(this.class.classLoader, new Binding(), configuration)
PathIO.objects = { (1..3).collect { new Item(ID: UUID.fromString("0000000${it}-0000-8000-8000-000000000000")) } }
def mine = new Item(ID: UUID.randomUUID())
def old = new Item(ID: UUID.fromString('12345678-0000-5000-8000-000000000000'))

def go = { String uri, Map server = [:], type = ImageData.ImageType.UNSET ->
    Base.detections = [mine, old]
    Base.annotations = []
    Base.data = new ImageData(server: new Server([uri: uri] + server), imageType: type)
    shell.parse(text).run()
    println "RESULT ${Base.detections.size()} ${mine in Base.detections} ${old in Base.detections} ${Base.data.imageType}"
}
go("file:${folder}/a%20b'%C3%BC.svs")                                         // the slide itself
go("file:///elsewhere/a%20b'%C3%BC.svs", [:], ImageData.ImageType.BRIGHTFIELD_H_DAB) // moved
go("file:/elsewhere/other.svs")                                               // unknown
go("file:${folder}/a%20b'%C3%BC.svs", [width: 200, height: 100])              // not cropped
go("file:${folder}/d.svs")                                                    // no result
PathIO.outOfMemory = true
go("file:${folder}/a%20b'%C3%BC.svs")
