# shellcheck shell=bash
# The installer itself failed: leave its reason where a person sees it.

begin_step installer "The disk may be partitioned; this node must not be used."

show_installer_error() {
    local log found shown="" last=""
    for log in anaconda packaging storage program; do
        if [[ -s $NF_SYSROOT/tmp/$log.log ]]; then
            found=$(grep -iE 'error|critical|traceback|fail' "$NF_SYSROOT/tmp/$log.log" | tail -n 5 | cut -c 1-200) || true
            shown+="--- $log.log"$'\n'$found$'\n'
            : "${last:=${found##*$'\n'}}"
        fi
    done
    refuse "The installer stopped with an error.
$shown" "All logs are in /tmp of the installer." "$shown" "The installer stopped with an error${last:+: $last}"
}
