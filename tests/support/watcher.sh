# Stops a cluster of the tests once nobody has held a lease for a while. Runs detached, with a locked file as its standard
# input: as long as this script lives, so does that lock, and whoever joins the cluster can tell.
#
# Arguments: the cluster's folder, the idle limit in seconds, and, for a cluster of one test, the folder to remove with it.
folder=$1
limit=$2
temporary=$3

held() {
    for lease in "$folder"/leases/*; do
        [ -e "$lease" ] || continue
        if command -v flock >/dev/null 2>&1; then
            flock -n "$lease" true || return 0
        else
            holder=${lease##*/}
            kill -0 "${holder%%-*}" 2>/dev/null && return 0
        fi
    done
    return 1
}

postmaster() {
    pid=$(head -n 1 "$folder/data/postmaster.pid" 2>/dev/null) || return 1
    if [ -r "/proc/$pid/cmdline" ]; then
        command=$(tr '\0' ' ' <"/proc/$pid/cmdline")
    else
        command=$(ps -o args= -p "$pid" 2>/dev/null)
    fi
    case $command in
        *"$folder/data"*) return 0 ;;
        *) return 1 ;;
    esac
}

idle=0
while [ -d "$folder" ]; do
    sleep 2
    if held; then
        idle=0
        continue
    fi
    idle=$((idle + 2))
    [ "$idle" -lt "$limit" ] && continue
    # The mark first, then a second look: whoever joins takes a lease first and then looks for the mark, so that one of the
    # two always sees the other.
    : >"$folder/closing"
    if held; then
        rm -f "$folder/closing"
        idle=0
        continue
    fi
    if postmaster; then
        stopped=$pid
        kill -INT "$stopped"
        waited=0
        # Whoever joins meanwhile may start another one: that one is theirs.
        while postmaster && [ "$pid" = "$stopped" ]; do
            [ "$waited" -eq 20 ] && kill -QUIT "$stopped"
            [ "$waited" -eq 30 ] && break
            sleep 1
            waited=$((waited + 1))
        done
    fi
    [ -n "$temporary" ] && rm -rf "$temporary"
    exit 0
done
