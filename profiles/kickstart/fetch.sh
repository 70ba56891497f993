# shellcheck shell=bash
# Brings what the node gets besides packages (shared layers, its own overlay, its secrets)
# into $NF_RUN and checks it, before anything is written to a disk: a node that cannot have
# all of it keeps what it has.

NF_RETRIES=${NF_RETRIES:-6}
NF_PAUSE=${NF_PAUSE:-5}
NF_PYTHON=${NF_PYTHON:-/usr/libexec/platform-python}
# The label of the medium that holds what no boot server gives.
NF_MEDIUM=${NF_MEDIUM:-OEMDRV}

# Downloads to a file that has its name only when it is whole. Options are curl 7.61's. The server
# may hold several generations of what nodes share: the header tells which one fits.
get() { # URL FILE [OPTION…]
    curl --fail --silent --show-error --noproxy '*' --proto '=http,https' \
        --connect-timeout 10 --max-time 300 --retry "$NF_RETRIES" --retry-delay "$NF_PAUSE" \
        --retry-connrefused --header "X-Nodeforge-Node: $NF_NODE" --output "$2.part" "${@:3}" "$1" 2>"$NF_RUN/curl.log" &&
        mv "$2.part" "$2"
}

get_everything() {
    begin_step fetch
    mkdir -p "$NF_RUN/archives"
    "layers_by_$NF_OVERLAY"
    check_own
    "secrets_by_$NF_SECRETS"
    local name
    for name in $(archive_names); do
        require_sane_archive "$name"
    done
}

# In the order of unpacking: a later archive replaces files of an earlier one.
archive_names() {
    local layer
    for layer in $NF_LAYERS; do
        echo "layer-$layer.tar.gz"
    done
    echo overlay.tar.gz
    [[ $NF_SECRETS == none ]] || echo secrets.tar.gz
}

# ------------------------------------------------------------------------------------ by http

# The digests of shared layers stand in one file beside them. A new tree may be published
# between two downloads: then the whole set is taken again.
layers_by_http() {
    local try
    for try in 1 2 3 4 5; do
        if get_layer_set; then
            get "$NF_URL/nodes/$NF_NODE/overlay.tar.gz" "$NF_RUN/archives/overlay.tar.gz" ||
                refuse "The overlay of $NF_NODE cannot be fetched: $(last_curl_message)" "$ABOUT_THE_SERVER"
            return
        fi
        sleep "$((try * NF_PAUSE))"
    done
    refuse "The shared layers cannot be had whole from $NF_URL/layers: $trouble" "$ABOUT_THE_SERVER"
}

ABOUT_THE_SERVER="Look at the boot server's log, and build and publish the tree again if need be."
trouble=""

get_layer_set() {
    local layer
    get "$NF_URL/layers/SHA256SUMS" "$NF_RUN/archives/SHA256SUMS" || { trouble=$(last_curl_message) && return 1; }
    for layer in $NF_LAYERS; do
        get "$NF_URL/layers/$layer/layer.tar.gz" "$NF_RUN/archives/layer-$layer.tar.gz" ||
            { trouble="$layer: $(last_curl_message)" && return 1; }
        layer_is_listed "$layer" || return 1
    done
}

last_curl_message() {
    tail -n 1 "$NF_RUN/curl.log"
}

layer_is_listed() { # LAYER: as `sha256sum -c` in the folder of the layers would check it
    local digest name wanted=
    while read -r digest name; do
        if [[ ${name#\*} == "$1/layer.tar.gz" ]]; then wanted=$digest; fi
    done <"$NF_RUN/archives/SHA256SUMS"
    if [[ -z $wanted ]]; then
        trouble="SHA256SUMS does not list $1/layer.tar.gz"
    elif [[ $(digest_of "layer-$1.tar.gz") != "$wanted" ]]; then
        trouble="the digest of $1/layer.tar.gz is not the one in SHA256SUMS"
    else
        return 0
    fi
    return 1
}

digest_of() {
    local line
    line=$(sha256sum <"$NF_RUN/archives/$1")
    echo "${line%% *}"
}

check_own() {
    local have
    have=$(digest_of overlay.tar.gz)
    [[ $have == "$NF_OWN_SHA256" ]] ||
        refuse "The overlay of $NF_NODE has the digest
  $have, but its kickstart says
  $NF_OWN_SHA256." \
            "The tree was published anew since this kickstart was fetched, or a file was changed: restart the installer."
}

# The token goes to curl by its standard input: never an argument, an address or a log.
secrets_by_token() {
    local token
    token=$(kernel_argument nodeforge.token)
    [[ -n $token ]] ||
        refuse "The kernel line has no nodeforge.token=, so the secrets of $NF_NODE cannot be fetched." "$ABOUT_THE_SERVER"
    [[ $token =~ ^[A-Za-z0-9._~+/=-]+$ ]] ||
        refuse "nodeforge.token= on the kernel line holds characters that no token has."
    printf 'header = "Authorization: Bearer %s"\n' "$token" |
        get "$NF_URL/secret/$NF_NODE.tar.gz" "$NF_RUN/archives/secrets.tar.gz" --config - ||
        refuse "The secrets of $NF_NODE cannot be fetched: $(last_curl_message)" "$ABOUT_THE_SERVER"
}

secrets_by_none() {
    :
}

# -------------------------------------------------------------------------- by medium, embedded

# dracut hands /*ks of an initrd over to the installer's root (anaconda 33.16.9.5,
# dracut/anaconda-copy-ks.sh); a filesystem with the medium's label holds files of the same names.
take_handed_over() { # NAME
    local from handed="nodeforge-$1.ks" drive="$NF_SYSROOT/dev/disk/by-label/$NF_MEDIUM" at="$NF_RUN/medium"
    from=$NF_SYSROOT/$handed
    if [[ ! -e $from && -e $drive ]]; then
        mkdir -p "$at"
        [[ -e $at/$handed ]] || mount -o ro "$drive" "$at" || true
        from=$at/$handed
    fi
    [[ -e $from ]] ||
        refuse "$handed was not handed over with the kickstart, neither in the initrd nor on a filesystem labelled $NF_MEDIUM."
    cp "$from" "$NF_RUN/archives/$1"
}

layers_by_media() {
    local layer
    take_handed_over SHA256SUMS
    for layer in $NF_LAYERS; do
        take_handed_over "layer-$layer.tar.gz"
    done
    take_handed_over overlay.tar.gz
    require_listed_layers
}

secrets_by_media() {
    take_handed_over secrets.tar.gz
}

# The installer has no base64(1); its Python is always there.
take_embedded() { # NAME
    "$NF_PYTHON" -m base64 -d "$NF_RUN/embedded/$1" >"$NF_RUN/archives/$1" ||
        refuse "$1, embedded in the kickstart, is damaged."
}

layers_by_embedded() {
    local layer
    take_embedded SHA256SUMS
    for layer in $NF_LAYERS; do
        take_embedded "layer-$layer.tar.gz"
    done
    take_embedded overlay.tar.gz
    require_listed_layers
}

secrets_by_embedded() {
    take_embedded secrets.tar.gz
}

require_listed_layers() {
    local layer
    for layer in $NF_LAYERS; do
        layer_is_listed "$layer" || refuse "The shared layers are not whole: $trouble."
    done
}

# ----------------------------------------------------------------------------- what may be in it

# Folders, files and links below the root, nothing else.
require_sane_archive() { # NAME
    local file=$NF_RUN/archives/$1 kinds name
    kinds=$(tar --list --verbose --gzip --file="$file" 2>/dev/null | cut -c 1 | sort -u) ||
        refuse "$1 is not a whole tar.gz archive."
    [[ ! ${kinds//$'\n'/} =~ [^dl-] ]] ||
        refuse "$1 holds something else than folders, files and symbolic links."
    while read -r name; do
        case /$name/ in
            //* | */../*) refuse "$1 holds a path that leaves the node's root: $name" ;;
        esac
    done < <(names_in "$1")
}

names_in() { # NAME OF ARCHIVE
    tar --list --gzip --absolute-names --quoting-style=escape --file="$NF_RUN/archives/$1"
}
