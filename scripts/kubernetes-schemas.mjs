// JSON schemas of Kubernetes objects, one file a kind, named as kubeconform looks for them. Unknown
// fields are refused, as `kubectl apply --validate=strict` does.
//   node scripts/kubernetes-schemas.mjs --out DIR --helm FILE --kubernetes DIR --crds DIR …
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

const { values: options } = parseArgs({
  options: {
    out: { type: "string" },
    helm: { type: "string" },
    kubernetes: { type: "string" },
    crds: { type: "string", multiple: true },
  },
});

const REF = "#/definitions/";
/** Kinds with several forms on the wire, which the published document calls plain texts. */
const FORMS = {
  "io.k8s.apimachinery.pkg.util.intstr.IntOrString": { type: ["integer", "string"] },
  "io.k8s.apimachinery.pkg.api.resource.Quantity": { type: ["number", "string"] },
};

/** A copy that refuses fields it does not name. */
function strict(schema) {
  if (Array.isArray(schema)) return schema.map(strict);
  if (typeof schema !== "object" || schema === null) return schema;
  const copy = Object.fromEntries(
    Object.entries(schema).map(([key, value]) => [
      key,
      key === "properties" ? mapValues(value, strict) : strict(value),
    ]),
  );
  if (copy["x-kubernetes-int-or-string"]) copy.type = ["integer", "string"];
  if (copy.nullable && typeof copy.type === "string") copy.type = [copy.type, "null"];
  const isOpen = copy["x-kubernetes-preserve-unknown-fields"] || "additionalProperties" in copy;
  if (copy.properties && !isOpen) copy.additionalProperties = false;
  return copy;
}

const mapValues = (object, body) =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [key, body(value)]));

function write(group, version, kind, schema) {
  const parts = [kind, group.split(".")[0], version].filter(Boolean);
  const file = path.join(options.out, `${parts.join("-").toLowerCase()}.json`);
  const draft = "http://json-schema.org/draft-07/schema#";
  writeFileSync(file, JSON.stringify({ $schema: draft, ...schema }));
}

/** The definitions that one needs, itself included. */
function closureOf(name, all, found = {}) {
  if (name in found) return found;
  found[name] = FORMS[name] ?? strict(all[name]);
  for (const [, next] of JSON.stringify(found[name]).matchAll(/"#\/definitions\/([^"]+)"/g)) {
    closureOf(next, all, found);
  }
  return found;
}

function writeBuiltIn(folder) {
  const file = path.join(folder, "api", "openapi-spec", "swagger.json");
  const { definitions } = JSON.parse(readFileSync(file, "utf8"));
  for (const [name, definition] of Object.entries(definitions)) {
    const kinds = definition["x-kubernetes-group-version-kind"] ?? [];
    if (kinds.length !== 1 || !definition.properties?.metadata) continue;
    const [{ group, version, kind }] = kinds;
    write(group, version, kind, {
      allOf: [{ $ref: REF + name }],
      definitions: closureOf(name, definitions),
    });
  }
}

/** Helm reads YAML, and is there for the chart anyhow. */
function yamlToJson(files) {
  const chart = mkdtempSync(path.join(os.tmpdir(), "crds-"));
  mkdirSync(path.join(chart, "templates"));
  mkdirSync(path.join(chart, "files"));
  writeFileSync(path.join(chart, "Chart.yaml"), "apiVersion: v2\nname: crds\nversion: 0.0.0\n");
  writeFileSync(
    path.join(chart, "templates", "all.yaml"),
    '{{ range $name, $_ := .Files.Glob "files/*" }}\n---\n{{ $.Files.Get $name | fromYaml | toJson }}\n{{ end }}',
  );
  for (const file of files) copyFileSync(file, path.join(chart, "files", path.basename(file)));
  const text = execFileSync(options.helm, ["template", "x", chart], {
    encoding: "utf8",
    maxBuffer: 2 ** 28,
  });
  rmSync(chart, { recursive: true });
  return text
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line));
}

function writeCustom(folders) {
  const files = folders.flatMap((folder) =>
    readdirSync(folder)
      .filter((name) => name.endsWith(".yaml"))
      .map((name) => path.join(folder, name)),
  );
  for (const { spec } of yamlToJson(files)) {
    for (const { name: version, schema } of spec.versions) {
      const root = strict(schema.openAPIV3Schema);
      // Kubernetes' own part of every object.
      root.properties.metadata = { type: "object" };
      write(spec.group, version, spec.names.kind, root);
    }
  }
}

mkdirSync(options.out, { recursive: true });
writeBuiltIn(options.kubernetes);
writeCustom(options.crds);
console.log(`${readdirSync(options.out).length} schemas`);
