# shellcheck shell=bash disable=SC2154 # names of ../lib.sh
#
# The certificates of a cluster, sourced by control.sh and node.sh: one authority, for a day's tests.

openssl_quietly() { openssl "$@" 2>>"$dir/log/openssl.log"; }

make_key() { openssl_quietly ecparam -name prime256v1 -genkey -noout -out "$1"; }

make_authority() {
    mkdir -p "$pki"
    make_key "$pki/ca.key"
    openssl_quietly req -x509 -new -key "$pki/ca.key" -days 365 -subj "/CN=$name" -out "$pki/ca.crt"
    make_key "$pki/accounts.key" # signs the tokens of service accounts
}

# make_certificate NAME SUBJECT [ADDRESSES]: for a server when it has addresses, else for a client.
make_certificate() {
    make_key "$pki/$1.key"
    local extensions=extendedKeyUsage=clientAuth
    [ -z "${3-}" ] || extensions=$(printf 'extendedKeyUsage=serverAuth\nsubjectAltName=%s' "$3")
    openssl_quietly req -new -key "$pki/$1.key" -subj "$2" |
        openssl_quietly x509 -req -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -set_serial "0x$(openssl rand -hex 16)" \
            -days 365 -extfile <(echo "$extensions") -out "$pki/$1.crt"
}

# make_kubeconfig NAME SUBJECT: a client of the API server.
make_kubeconfig() {
    make_certificate "$1" "$2"
    cat >"$dir/run/etc/$1.kubeconfig" <<Y
apiVersion: v1
kind: Config
current-context: $name
contexts:
- {name: $name, context: {cluster: $name, user: $1}}
clusters:
- {name: $name, cluster: {server: "$api", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}}
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$pki/$1.crt")
    client-key-data: $(base64 -w0 "$pki/$1.key")
Y
}
