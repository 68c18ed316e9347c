#!/usr/bin/env bash
# rootfs.sh BINARY FOLDER: lays out all that the image holds, for `make image` and for the Dockerfile alike:
# the program, the shared libraries it was linked with, and the few files that these read. No shell, no packages.
set -euo pipefail
umask 022

binary=$1 root=$2
mkdir -p "$root/etc"
install -D -m 755 "$binary" "$root/usr/bin/mqlink"
strip --strip-debug "$root/usr/bin/mqlink" # backtraces keep the names

# The libraries and the loader, each at the path where the program looks for it.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    install -D -m 755 "$library" "$root$library"
    # Before glibc 2.34 names were resolved by libraries that it loads by itself.
    for resolver in "$(dirname "$library")"/libnss_{dns,files}.so.2 "$(dirname "$library")"/libresolv.so.2; do
        [ ! -e "$resolver" ] || install -D -m 755 "$resolver" "$root$resolver"
    done
done
# The authorities that TLS trusts where no other is named.
[ ! -e /etc/ssl/certs/ca-certificates.crt ] ||
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"

# The number that the Dockerfile's USER names. A cluster may run it as any other.
echo 'mqlink:x:65532:65532:mqlink:/:/sbin/nologin' >"$root/etc/passwd"
echo 'mqlink:x:65532:' >"$root/etc/group"
