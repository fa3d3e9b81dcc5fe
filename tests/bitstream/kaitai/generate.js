// Generates vcm.py from formats/vcm.ksy; README.md beside this file says how to run it.
const crypto = require("crypto");
const fs = require("fs");
const path = require("path");
const compiler = require("kaitai-struct-compiler");
const yaml = require("js-yaml");

const source = fs.readFileSync(path.join(__dirname, "../../../formats/vcm.ksy"));
const sha256 = crypto.createHash("sha256").update(source).digest("hex");
compiler.compile("python", yaml.load(source.toString("utf-8")), null, false).then(
  (files) => {
    const note = "# Generated from formats/vcm.ksy by generate.js; README.md says how.\n";
    fs.writeFileSync(path.join(__dirname, "vcm.py"), note + files["vcm.py"]);
    fs.writeFileSync(path.join(__dirname, "vcm.ksy.sha256"), sha256 + "\n");
  },
  (error) => {
    console.error(String(error));
    process.exit(1);
  },
);
