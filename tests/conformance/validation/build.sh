#!/bin/sh
# Build the OCI validation suite (runtime-tools, validation/) from Debian's source package into the directory $1.
# Debian 12's own is too old for its Go packages to fit, so it is the next release's; the archive is the one that apt uses.
set -eu
out=$1
here=$(cd "$(dirname "$0")" && pwd)
name=golang-github-opencontainers-runtime-tools
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/parts" "$work/source" "$out"

site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian$' | sort | uniq | head -n 1)
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site trixie main" >"$work/sources.list"
apt() {
    apt-get -qq -o Acquire::Retries=3 -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts="$work/parts" \
        -o Dir::State::lists="$work/lists" "$@"
}
apt update
# Only the archive itself is needed: a mirror that lacks the Debian part of the package will do.
(cd "$work" && apt source --download-only $name) || ls "$work"/*.orig.tar.* >/dev/null
tar -xf "$work"/*.orig.tar.* -C "$work/source" --strip-components=1

export GOPATH="$work/go:/usr/share/gocode" GO111MODULE=off GOCACHE="$work/cache" GOFLAGS=
src=$work/go/src/github.com
mkdir -p "$src/opencontainers" "$src/mndrix/tap-go" "$src/blang/semver"
ln -s "$work/source" "$src/opencontainers/runtime-tools"
ln -s /usr/share/gocode/src/github.com/blang/semver "$src/blang/semver/v4"
cp "$here/tap.go" "$src/mndrix/tap-go/"
cd "$src/opencontainers/runtime-tools"
# Go raises the soft limit of open files when a program starts, since 1.19: runtimetest would not see what it is to check.
echo "{\"Replace\": {\"$(go env GOROOT)/src/os/rlimit.go\": \"\"}}" >"$work/overlay.json"
CGO_ENABLED=0 go build -overlay "$work/overlay.json" -o "$out/runtimetest" ./cmd/runtimetest
mkdir -p "$out/bin"
go build -o "$out/bin/" ./validation/...
cp rootfs-*.tar.gz "$out"
