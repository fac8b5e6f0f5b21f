#!/usr/bin/env python3
"""Checks the locked dependencies: licences we can ship under, none of what the design excludes, all from one registry."""

import json
import re
import subprocess
import sys

ALLOWED = {
    "MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Unicode-3.0", "Zlib",
    "0BSD", "Unlicense", "CC0-1.0", "CDLA-Permissive-2.0", "MIT-0", "BSL-1.0", "Unicode-DFS-2016",
}
BANNED = {
    "openssl-sys": "OpenSSL costs 22 ms of every start",
    "aws-lc-sys": "ring is the crypto provider",
    "anyhow": "errors of the library are typed",
}


def allowed(expression):
    """Whether one of an SPDX expression's alternatives is allowed in all its parts."""
    expression = expression.replace("/", " OR ").replace("(", "").replace(")", "")
    return any(
        all(part.strip() in ALLOWED for part in re.split(r"\s+AND\s+", choice))
        for choice in re.split(r"\s+OR\s+", expression)
    )


tree = subprocess.run(
    ["cargo", "tree", "--locked", "--edges", "normal,build", "--target", "all", "--prefix", "none",
     "--format", "{p}|{l}"],
    check=True, capture_output=True, text=True,
).stdout
wrong = []
packages = set()
for line in set(tree.splitlines()):
    package, licence = line.replace(" (*)", "").rsplit("|", 1)
    name = package.split()[0]
    packages.add(package)
    if name in BANNED:
        wrong.append(f"{package}: banned, {BANNED[name]}")
    if not allowed(licence):
        wrong.append(f"{package}: licence {licence!r} is not one we know")
metadata = json.loads(subprocess.run(
    ["cargo", "metadata", "--locked", "--format-version", "1"], check=True, capture_output=True, text=True).stdout)
sources = {p["source"] for p in metadata["packages"] if p["source"]}
if len(sources) > 1:
    wrong.append(f"more than one source of packages: {len(sources)}")
if wrong:
    sys.exit("\n".join(sorted(wrong)))
print(f"{len(packages)} packages, licences known, nothing banned, one registry")
