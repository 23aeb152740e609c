#!/usr/bin/python3
"""Writes a container image of Countersign as an OCI image layout, with its SBOM; scripts/image calls it.

The image is what the program needs to run and nothing else: the program, the shared libraries that it names, the loader,
authorities for TLS, a user that is not root, and the licences of all that. Whatever goes in comes from the program, this
repository or a file that a Debian package owns and that is as the package has it. So nothing of the machine gets in, and
the same program on the same packages makes the same bytes.

Only Python's standard library is used, and Debian's own Python: another one may have another zlib, and so pack the same
files into other bytes. The format: github.com/opencontainers/image-spec (image-layout.md, manifest.md).
"""

import argparse
import atexit
import functools
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import urllib.parse

USER = 65532
# What readelf calls a machine, what OCI calls it, Debian's folder of its libraries, and Rust's target.
MACHINES = {
    "Advanced Micro Devices X86-64": ("amd64", "x86_64-linux-gnu", "x86_64-unknown-linux-gnu"),
    "AArch64": ("arm64", "aarch64-linux-gnu", "aarch64-unknown-linux-gnu"),
}
IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
SBOM = "application/vnd.cyclonedx+json"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True, help="the countersign program")
    parser.add_argument("--output", required=True, help="the folder of the layout; one that is there is replaced")
    parser.add_argument("--time", required=True, type=int, help="the time of everything, in seconds since 1970")
    parser.add_argument("--revision", default="", help="the commit")
    arguments = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

    package = workspace_package()
    program = Program(arguments.program)
    contents = Contents()
    contents.add("/usr/bin/countersign", read(arguments.program), 0o755)
    add_libraries(contents, program)
    add_authorities(contents)
    add_settings(contents)
    add_licences(contents)

    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(arguments.time))
    labels = {
        "org.opencontainers.image.title": "countersign",
        "org.opencontainers.image.description": package["description"],
        "org.opencontainers.image.version": package["version"],
        "org.opencontainers.image.licenses": package["license"],
        "org.opencontainers.image.created": created,
    }
    if arguments.revision:
        labels["org.opencontainers.image.revision"] = arguments.revision
    if package["repository"]:
        labels["org.opencontainers.image.source"] = package["repository"]

    layout = Layout(arguments.output)
    image = write_image(layout, contents, program, labels, created, arguments.time)
    bom = canonical(bill_of_materials(package, program, contents, image, created), indent=1)
    sbom = write_sbom(layout, bom, image, package["version"], created)
    layout.finish([image, sbom])
    with open(arguments.output.rstrip("/") + ".cdx.json", "wb") as file:
        file.write(bom)
    print(f"image {package['version']} {image['digest']}")
    print(f"sbom {package['version']}.sbom {sbom['digest']}")


# ---- What is in the image


class Contents:
    """Files by their path in the image, and the Debian packages that they come from."""

    def __init__(self):
        self.files = {}
        self.packages = {}

    def add(self, path, data, mode=0o644):
        self.files[path] = (data, mode)

    def add_from_debian(self, path, source, mode=0o644):
        """A file that a Debian package owns, under a path in the image."""
        package, data = debian_file(source)
        self.add(path, data, mode)
        self.packages.setdefault(package, []).append(path)

    def tar(self, output, seconds):
        """Sorted by name, owned by root, all of one time: so the same files are always the same bytes."""
        folders = set()
        for path in self.files:
            while (path := os.path.dirname(path)) != "/":
                folders.add(path)
        with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path in sorted(folders | self.files.keys()):
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.mtime = seconds
                if path in folders:
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
                else:
                    data, entry.mode = self.files[path]
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))


class Program:
    """What the head of an ELF file says."""

    def __init__(self, path):
        self.path = path
        head = run("readelf", "--file-header", "--program-headers", path)
        machine = re.search(r"Machine: +(.*)", head)[1]
        if machine not in MACHINES:
            fail(f"{path} is for a machine that images are not made for: {machine}")
        self.architecture, self.libraries, self.target = MACHINES[machine]
        loader = re.search(r"program interpreter: (.*)\]", head)
        self.loader = loader and loader[1]
        # The compiler, and so its standard library, leaves its name in this section.
        compiler = re.search(r"rustc version ([^ ]+)", run("readelf", "--string-dump=.comment", path))
        self.compiler = compiler and compiler[1]


def needed(path):
    """The shared libraries that an ELF file names."""
    return re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "--dynamic", path))


def add_libraries(contents, program):
    """What the program needs, and what that needs, where Debian's loader looks without a cache of its own; and the loader.

    The resolver needs no more: since 2.34 glibc has `files` and `dns` of nsswitch.conf inside."""
    if not program.loader:
        return
    folder = f"/lib/{program.libraries}"
    loader = os.path.basename(program.loader)
    contents.add_from_debian(program.loader, f"{folder}/{loader}", 0o755)
    waiting, seen = needed(program.path), {loader}
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            source = next((path for path in (f"{folder}/{name}", f"/usr{folder}/{name}") if os.path.exists(path)), None)
            if not source:
                fail(f"{program.path} needs {name}, which is not in {folder}")
            contents.add_from_debian(f"{folder}/{name}", source)
            waiting += needed(source)


def add_authorities(contents):
    """The public authorities of Debian's package, not /etc/ssl/certs: a machine may have authorities of its own in that."""
    listed = debian_checksums("ca-certificates")
    paths = sorted(path for path in listed if path.startswith("/usr/share/ca-certificates/") and path.endswith(".crt"))
    if not paths:
        fail("the package ca-certificates has no certificates")
    certificates = [as_packaged("ca-certificates", path).strip() + b"\n" for path in paths]
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    contents.add(bundle, b"".join(certificates))
    contents.packages["ca-certificates"] = [bundle]


def add_settings(contents):
    nobody = "/nonexistent:/sbin/nologin"
    contents.add("/etc/passwd", f"root:x:0:0:root:{nobody}\nnonroot:x:{USER}:{USER}:nonroot:{nobody}\n".encode())
    contents.add("/etc/group", f"root:x:0:\nnonroot:x:{USER}:\n".encode())
    # Without it glibc asks DNS first, and /etc/hosts, where a pod's `hostAliases` are, only if there is no DNS.
    contents.add("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")


def add_licences(contents):
    """They ask to be handed on with what they are about."""
    contents.add("/usr/share/doc/countersign/copyright", read("LICENSE"))
    for package in contents.packages:
        path = f"/usr/share/doc/{package}/copyright"
        contents.add(path, debian_file(path)[1])


# ---- Debian's packages


@functools.cache
def debian_checksums(package):
    """The files of a package, with their MD5."""
    listed = run("dpkg-query", "--control-show", package, "md5sums")
    return {"/" + path: md5 for md5, path in (line.split(maxsplit=1) for line in listed.splitlines())}


def debian_file(path):
    """The package that owns a file, and its bytes, which must be those of the package: what the SBOM says is true then."""
    real = os.path.realpath(path)
    # Some packages list their files below /lib, and others below /usr/lib, to which /lib is a link.
    for listed in (path, real, real.removeprefix("/usr"), "/usr" + real):
        found = subprocess.run(["dpkg-query", "--search", listed], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            owner = found.stdout.splitlines()[0].rsplit(": ", 1)[0]
            # A link has no checksum; the file that it points to is the next that is looked for.
            if listed in debian_checksums(owner):
                return owner.split(":")[0], as_packaged(owner, listed)
    fail(f"{path} is of no Debian package")


def as_packaged(package, path):
    """The bytes of a package's file, which must be those that the package brought."""
    data = read(path)
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != debian_checksums(package)[path]:
        fail(f"{path} is not as the package {package} has it; reinstall that")
    return data


# ---- The layout


class Layout:
    """An OCI image layout, made in a folder beside and moved to its place when it is whole."""

    def __init__(self, output):
        self.output = output.rstrip("/")
        # Nothing is deleted that is not what stands there after an earlier run.
        if os.path.exists(self.output) and not os.path.exists(f"{self.output}/oci-layout"):
            fail(f"{self.output} is there and is not an image layout; name another --output")
        parent = os.path.dirname(os.path.abspath(self.output))
        os.makedirs(parent, exist_ok=True)
        self.work = tempfile.mkdtemp(prefix=".image-", dir=parent)
        os.chmod(self.work, 0o755)
        atexit.register(shutil.rmtree, self.work, ignore_errors=True)
        os.makedirs(f"{self.work}/blobs/sha256")

    def blob(self, media_type, data, **more):
        """Writes a blob and gives its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{self.work}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    def finish(self, manifests):
        index = {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": manifests}
        for name, value in (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", index)):
            with open(f"{self.work}/{name}", "wb") as file:
                file.write(canonical(value))
        shutil.rmtree(self.output, ignore_errors=True)
        os.rename(self.work, self.output)


def write_image(layout, contents, program, labels, created, seconds):
    tar = io.BytesIO()
    contents.tar(tar, seconds)
    # The head of a gzip file has room for a name and a time; both are left out.
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.write(tar.getbuffer())
    layer = layout.blob(LAYER, packed.getvalue())
    config = {
        "created": created,
        "architecture": program.architecture,
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            # The Deployment gives `args` alone.
            "Entrypoint": ["/usr/bin/countersign"],
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar.getbuffer()).hexdigest()]},
        "history": [{"created": created, "created_by": "scripts/image"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "config": layout.blob(IMAGE_CONFIG, canonical(config)),
        "layers": [layer],
        "annotations": labels,
    }
    version = labels["org.opencontainers.image.version"]
    return layout.blob(
        IMAGE_MANIFEST,
        canonical(manifest),
        platform={"architecture": program.architecture, "os": "linux"},
        annotations={"org.opencontainers.image.ref.name": version},
    )


def write_sbom(layout, bom, image, version, created):
    """The SBOM as an artifact that refers to the image: registries with the referrers API list it under the image's digest.

    It has a tag as well, so that tools that know no referrers can copy it."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": SBOM,
        "config": layout.blob(EMPTY, b"{}"),
        "layers": [layout.blob(SBOM, bom, annotations={"org.opencontainers.image.title": "countersign.cdx.json"})],
        "subject": {key: image[key] for key in ("mediaType", "digest", "size")},
        "annotations": {"org.opencontainers.image.created": created},
    }
    return layout.blob(
        IMAGE_MANIFEST,
        canonical(manifest),
        artifactType=SBOM,
        annotations={"org.opencontainers.image.ref.name": f"{version}.sbom"},
    )


# ---- The SBOM


def bill_of_materials(package, program, contents, image, created):
    """CycloneDX 1.5. Everything in it follows from the image: there is no serial number, and its time is the commit's."""
    crates, edges, root = crate_graph(program.target)
    debian = [debian_component(name, paths, contents) for name, paths in sorted(contents.packages.items())]
    # The crate `countersign` is what the program is made from.
    crates[root] |= {"type": "application", "description": package["description"]}
    crates[root]["hashes"] = sha256_of(contents.files["/usr/bin/countersign"][0])
    if program.compiler:
        std = {"type": "library", "bom-ref": f"rust-std@{program.compiler}", "name": "rust-std", "version": program.compiler}
        std["description"] = "The standard library of Rust"
        std["licenses"] = licences("MIT OR Apache-2.0")
        crates["std"] = std
        edges.setdefault(root, set()).add("std")
    digest = urllib.parse.quote(image["digest"], safe="")
    top = {
        "type": "container",
        "bom-ref": "image",
        "name": "countersign",
        "version": package["version"],
        "description": package["description"],
        "licenses": licences(package["license"]),
        "purl": f"pkg:oci/countersign@{digest}?arch={program.architecture}",
    }
    components = sorted([*crates.values(), *debian], key=lambda component: component["bom-ref"])
    dependencies = [{"ref": "image", "dependsOn": sorted([crates[root]["bom-ref"], *(one["bom-ref"] for one in debian)])}]
    for key, component in sorted(crates.items(), key=lambda item: item[1]["bom-ref"]):
        targets = sorted(crates[target]["bom-ref"] for target in edges.get(key, ()))
        dependencies.append({"ref": component["bom-ref"], "dependsOn": targets})
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": created, "component": top},
        "components": components,
        "dependencies": dependencies,
    }


def crate_graph(target):
    """The crates of the program as components, who depends on whom, and which one is the program's.

    `cargo tree` knows which of the lock file's crates are built for this program and target with its features; licences are in
    `cargo metadata`, and checksums in the lock file."""
    with open("Cargo.lock", "rb") as file:
        checksums = {(one["name"], one["version"]): one.get("checksum") for one in tomllib.load(file)["package"]}
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={target}"))
    metadata = {(one["name"], one["version"]): one for one in metadata["packages"]}
    tree = run(
        "cargo", "tree", "--locked", "--package=countersign", "--edges=normal", f"--target={target}",
        "--prefix=depth", "--format= {p}",
    )  # fmt: skip
    crates, edges, path = {}, {}, []
    for line in tree.splitlines():
        depth, name, version = re.match(r"(\d+) (\S+) v(\S+)", line).groups()
        key = (name, version)
        path[int(depth) :] = [key]
        if len(path) > 1:
            edges.setdefault(path[-2], set()).add(key)
        if key not in crates:
            crates[key] = crate_component(key, metadata[key], checksums[key])
    return crates, edges, path[0]


def crate_component(key, metadata, checksum):
    name, version = key
    component = {"type": "library", "bom-ref": f"{name}@{version}", "name": name, "version": version}
    if metadata["license"]:
        # An older form of Cargo's has a slash for "or".
        component["licenses"] = licences(re.sub(r" */ *", " OR ", metadata["license"]))
    if checksum:
        # Only what comes from the registry has a checksum, and a name that others know.
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        component["purl"] = f"pkg:cargo/{name}@{urllib.parse.quote(version, safe='')}"
    return component


def debian_component(name, paths, contents):
    fields = run("dpkg-query", "--show", "--showformat=${Version} ${Architecture}\n", name).splitlines()[0]
    version, architecture = fields.split()
    release = read_release()
    return {
        "type": "library",
        "bom-ref": f"debian/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:deb/debian/{name}@{urllib.parse.quote(version, safe='')}?arch={architecture}&distro=debian-{release}",
        "components": [
            {
                "type": "file",
                "bom-ref": f"debian/{name}@{version}{path}",
                "name": path,
                "hashes": sha256_of(contents.files[path][0]),
            }
            for path in sorted(paths)
        ],
    }


def licences(expression):
    return [{"expression": expression}]


def sha256_of(data):
    return [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}]


def read_release():
    return re.search(r'^VERSION_ID="?([0-9.]+)', read("/etc/os-release").decode(), re.MULTILINE)[1]


def workspace_package():
    """What Cargo.toml says of the program."""
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version=1", "--no-deps"))
    return next(one for one in metadata["packages"] if one["name"] == "countersign")


# ---- Small things


def canonical(value, indent=None):
    """JSON in one form only: by the order in which it was made, which is always the same."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, indent=indent, separators=separators, ensure_ascii=False).encode() + b"\n"


def read(path):
    with open(path, "rb") as file:
        return file.read()


def run(*command):
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        fail(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def fail(message):
    print(f"image: {message}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
