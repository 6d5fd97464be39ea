#!/bin/sh
# In the image's build: use the mirror and the certificates that were given, and fetch the lists.
# Nothing of it stays in the image.
set -eu

conf=/etc/apt/apt.conf.d/99build
mkdir -p /build
: >/build/environment.sh
: >"$conf"
if [ -n "${CA_CERTIFICATES:-}" ]; then
    printf '%s\n' "$CA_CERTIFICATES" >/build/ca.pem
    echo 'Acquire::https::CaInfo "/build/ca.pem";' >>"$conf"
    echo 'export PIP_CERT=/build/ca.pem' >>/build/environment.sh
fi
if [ -n "${APT_MIRROR:-}" ]; then
    echo "deb $APT_MIRROR bookworm main" >/build/sources.list
    printf '%s\n' 'Dir::Etc::SourceList "/build/sources.list";' \
        'Dir::Etc::SourceParts "/build/none";' >>"$conf"
fi
# An argument that was not given is empty, which pip would take for an index.
[ -n "${PIP_INDEX_URL:-}" ] || echo 'unset PIP_INDEX_URL' >>/build/environment.sh
[ -n "${PIP_CONFIG_FILE:-}" ] || echo 'unset PIP_CONFIG_FILE' >>/build/environment.sh
apt-get update
