#!/bin/sh
# enter [-n NODE] [-u USER] COMMAND...: runs a command inside the lab, on the controller or on a node.
export PATH="$$PATH:/usr/sbin:/sbin" SLURM_CONF=$folder/etc/slurm.conf
node= user= home=$folder
while getopts n:u: option; do
    case $$option in
    n) node=$$OPTARG ;;
    u) user=$$OPTARG home=$folder/home/$$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $$((OPTIND - 1))
set -- env -C "$$home" "$$@"
if [ -n "$$user" ]; then
    export HOME="$$home" USER="$$user" LOGNAME="$$user"
    set -- setpriv --reuid "$$user" --regid "$$user" --init-groups "$$@"
fi
if [ -n "$$node" ] && [ $mode = netns ]; then
    # The holder of the node has its pid on file inside the lab.
    set -- sh -c 'read -r pid <"/run/nodes/$$0" && exec nsenter --net --uts --mount --target "$$pid" "$$@"' "$$node" "$$@"
fi
exec nsenter $options $process "$$@"
