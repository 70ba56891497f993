# shellcheck shell=bash
# Unpacks the checked archives into the installed system.

begin_step unpack "The disk has been partitioned and the packages are on it, but this node must not be used."

unpack_everything() {
    local archive name
    : >"$NF_RUN/unpacked"
    for archive in $(archive_names); do
        while read -r name; do
            require_real_folders "$archive" "$name"
            printf '/%s\n' "${name%/}" >>"$NF_RUN/unpacked"
        done < <(names_in "$archive")
        # Everything is root's, with the modes of the archive, and folders that are there keep
        # theirs: /root stays 0550, a kept /var/lib/daos stays DAOS's. Other owners are set by
        # name, later, by one tmpfiles list.
        tar --extract --gzip --file="$NF_RUN/archives/$archive" --directory="$NF_TARGET" \
            --no-same-owner --same-permissions --no-overwrite-dir \
            --no-xattrs --no-acls --no-selinux
    done
}

# A link among the folders above a file would lead tar somewhere else, even out of the
# installed system; a folder in the place of a link would break the system.
require_real_folders() { # ARCHIVE NAME
    local path=$2
    if [[ $path != */ ]]; then
        [[ $path == */* ]] || return 0
        path=${path%/*}
    fi
    path=${path%/}
    while :; do
        [[ ! -L $NF_TARGET/$path ]] ||
            refuse "$1 holds $2, but /$path is a link on the installed system."
        [[ $path == */* ]] || return 0
        path=${path%/*}
    done
}
