// What Netron's own parsers see in a model: node netron_nodes.mjs FOLDER FILE prints JSON: a list of nodes with type, name,
// attributes and the functions' names. FOLDER holds Netron's sources.
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as url from 'node:url';

const [folder, file] = process.argv.slice(2);
const source = (name) => url.pathToFileURL(path.join(folder, name)).href;

globalThis.window = globalThis;
const base = await import(source('base.js'));
const view = await import(source('view.js'));

class Host {
    get environment() { return new Map(); }
    async require(id) { return await import(source(`${id.replace(/^\.\//, '')}.js`)); }
    async request(name, encoding, location) {
        return await fs.readFile(path.join(location || folder, name), encoding || null);
    }
    exception(error) { throw error; }
    event() {}
}

const host = new Host();
const data = await fs.readFile(file);
const context = {
    identifier: path.basename(file), name: path.basename(file), stream: new base.BinaryStream(new Uint8Array(data)), entries: new Map(),
    request: (name, encoding, location) => host.request(name, encoding, location === undefined ? path.dirname(file) : location),
    fetch: (name, encoding, location) => host.request(name, encoding, location === undefined ? folder : location),
    require: (id) => host.require(id),
    error: (error) => { throw error; },
    exception: (error) => { throw error; },
};
const model = await new view.ModelFactoryService(host).open(context);
const text = (value) => JSON.parse(JSON.stringify(value ?? null, (_, v) => typeof v === 'bigint' ? Number(v) : v));
const attribute = (a) => [a.name, a.type === 'tensor' ? 'tensor' : text(a.value)];
const nodes = model.modules.flatMap((graph) => graph.nodes.map((node) => ({
    type: node.type.name, name: node.name || '', attributes: Object.fromEntries((node.attributes || []).map(attribute)),
    inside: (node.type.nodes || []).length,
})));
process.stdout.write(JSON.stringify({format: model.format, nodes}));
