#!/usr/bin/env bash
# Builds the Dockerfile's CPU image where no container engine and no registry are at hand: buildah with chroot isolation, on
# a base that debootstrap makes and that stands for rust:1.95-bookworm, and a root with the packages of distroless/cc that
# stands for it. Then runs what came out, in its own root, and says what it weighs.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${WORK:-/tmp/lfm-image-proof}
mirror=${MIRROR:-http://deb.debian.org/debian}
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
mkdir -p "$work"

# The layers above an image last for as long as it is the same one: it is made once.
missing() { ! buildah inspect --type image "localhost/lfm-$1" >/dev/null 2>&1; }
commit() { # NAME, buildah config's arguments...
	local from
	from=$(buildah from scratch)
	buildah add -q "$from" "$work/$1" / >"$work/$1.sha256"
	[ $# = 1 ] || buildah config "${@:2}" "$from"
	buildah commit -q --rm "$from" "localhost/lfm-$1" >/dev/null
	rm -rf "${work:?}/$1"
}
if missing rust; then
	echo "== a clean Debian with this machine's Rust, for RUST_IMAGE"
	rm -rf "$work/rust"
	debootstrap --variant=minbase --include=gcc,g++,libc6-dev,make,ca-certificates bookworm "$work/rust" "$mirror" >"$work/debootstrap.log"
	cp -a "$(rustc --print sysroot)/." "$work/rust/usr/local/"
	# The certificates that this machine trusts: its registries may stand behind a proxy of its own.
	cp /etc/ssl/certs/ca-certificates.crt "$work/rust/etc/ssl/certs/"
	commit rust --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env CARGO_HOME=/usr/local/cargo
fi
if missing cc; then
	echo "== the packages of distroless/cc, for RUNTIME_IMAGE"
	rm -rf "$work/cc" && mkdir -p "$work/cc" "$work/debs"
	(cd "$work/debs" && apt-get download -qq base-files ca-certificates libc6 libgcc-s1 libstdc++6 libssl3 netbase tzdata)
	for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/cc"; done
	mkdir -p "$work/cc/tmp" && chmod 1777 "$work/cc/tmp"
	echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >"$work/cc/etc/passwd"
	commit cc
fi

echo "== the Dockerfile"
# What this machine needs to reach its registries: proxies and certificates, if it has any.
passed=()
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
	[ -z "${!name:-}" ] || passed+=(--build-arg "$name=${!name}")
done
buildah build --format docker --layers --target cpu "${passed[@]}" --build-arg RUST_IMAGE=localhost/lfm-rust \
	--build-arg RUNTIME_IMAGE=localhost/lfm-cc --build-arg "REVISION=$(git rev-parse --short=12 HEAD)" ${BUILD_FLAGS:-} \
	-t localhost/lfm-serve .

echo "== the image"
container=$(buildah from localhost/lfm-serve)
root=$(buildah mount "$container")
# A container has /proc: by it the program finds itself, and the model beside it.
mkdir -p "$root/proc" && mount --bind /proc "$root/proc"
trap 'umount "$root/proc"; buildah rm "$container" >/dev/null' EXIT
buildah inspect --type image --format '{{.Docker.Config.User}} {{.Docker.Config.Entrypoint}} {{.Docker.Config.Healthcheck}}{{println}}' localhost/lfm-serve
for shell in sh bash dash busybox gcc cc python3 apt-get dpkg; do
	found=$(find "$root" -xdev -name "$shell" \( -type f -o -type l \) -print -quit)
	[ -z "$found" ] || { echo "there is a $shell in it: $found" >&2; exit 1; }
done
echo "no shell, no compiler, no package manager"
for part in bin lib share LICENSES sbom.cdx.json; do du -sb "$root/opt/lfm-serve/$part" | sed "s#$root##"; done

echo "== run in its own root as 65532"
buildah run --isolation chroot "$container" -- /opt/lfm-serve/bin/lfm-serve doctor

python3 - "$root" tests/golden/images/orig_rocket.jpg <<'PY'
import os, pathlib, signal, subprocess, sys, urllib.request
root, picture = sys.argv[1:]
def inside():
    os.chroot(root); os.chdir("/"); os.setgroups([]); os.setgid(65532); os.setuid(65532)
program = "/opt/lfm-serve/bin/lfm-serve"
server = subprocess.Popen([program, "serve", "--listen", "127.0.0.1:0", "--drain-delay", "0s"], executable=program, env={},
                          stdout=subprocess.PIPE, text=True, preexec_fn=inside)
url = server.stdout.readline().split()[-1]
while subprocess.run([program, "healthcheck", "--url", f"{url}/readyz"], env={}, preexec_fn=inside, stderr=subprocess.DEVNULL).returncode:
    assert server.poll() is None
print("healthcheck passes")
request = urllib.request.Request(f"{url}/v1/score", pathlib.Path(picture).read_bytes(), {"Content-Type": "image/jpeg"})
answer = urllib.request.urlopen(request)
print(answer.status, answer.read().decode()[:160], "...")
server.send_signal(signal.SIGTERM)
assert server.wait() == 0
print("stopped by SIGTERM with 0")
PY
