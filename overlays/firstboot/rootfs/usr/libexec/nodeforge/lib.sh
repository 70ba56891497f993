#!/bin/bash
# What the scripts of the first boot share; they source it. bash 4.4 and coreutils 8.30.
#
# NODEFORGE_ROOT is empty on a node; tests put a made-up machine there.
# shellcheck disable=SC2034

umask 022
export LC_ALL=C
root=${NODEFORGE_ROOT:-}
# On a node the tools are the system's own; a made-up machine brings others by PATH.
[[ -n $root ]] || export PATH=/usr/sbin:/usr/bin:/sbin:/bin
libexec=$root/usr/libexec/nodeforge
state=$root/var/lib/nodeforge
run=$root/run/nodeforge

# A process for each word is felt by a node that starts: what follows has none where bash can
# do it itself.
now() {
    TZ=UTC0 printf '%(%Y-%m-%dT%H:%M:%SZ)T' -1
}

boot_id() {
    local id=
    read -r id <"$root/proc/sys/kernel/random/boot_id" || true
    echo "${id:-unknown}"
}

# Sets a variable to a string as JSON writes it. What is not ASCII, and control characters,
# become blanks.
json_into() { # VARIABLE TEXT
    local text=${2//\\/\\\\}
    text=${text//\"/\\\"}
    printf -v "$1" '"%s"' "${text//[^ -~]/ }"
}

json() { # TEXT
    local quoted
    json_into quoted "$1"
    printf '%s' "$quoted"
}

# The value of a top-level string of our own indented JSON files, where a whole parser would
# take longer to start than the script runs.
json_string() { # FILE KEY
    local line
    while IFS= read -r line; do
        if [[ $line =~ ^"  \"$2\": \""([^\"\\]*)\",?$ ]]; then
            printf '%s' "${BASH_REMATCH[1]}"
            return
        fi
    done <"$1"
}

# Takes away what opens something: nothing that leaves a script may hold it.
without_secrets() {
    sed -e 's/\(nodeforge\.[a-z_]*token\)=[^[:space:]"'\'']*/\1=(removed)/g' \
        -e 's/\([Bb]earer\)[[:space:]]\{1,\}[^[:space:]"'\'']*/\1 (removed)/g' \
        -e '/-----BEGIN [A-Z ]*PRIVATE KEY-----/,/-----END [A-Z ]*PRIVATE KEY-----/c\(removed)'
}

# Writes standard input to a file, whole or not at all, also through a power cut.
write_whole() { # FILE
    local new
    new=${1%/*}/.${1##*/}.new
    cat >"$new" && sync "$new" && mv -f "$new" "$1" && sync "${1%/*}"
}
