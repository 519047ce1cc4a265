#!/usr/bin/env bash
# A whole Slurm on this machine alone, for tests: no systemd, loopback, everything below one folder.
#   slurm.sh install      Debian's packages, as root; says so where they can't be had
#   slurm.sh up DIR       two nodes with two fake GPUs each and accounting; prints what to export
#   slurm.sh down DIR     stops what `up` started, by the recorded process ids, and nothing else
set -euo pipefail
action=$1

install() {
    command -v slurmctld >/dev/null && command -v slurmdbd >/dev/null && return
    apt-get update -qq
    # the full mariadb-server would upgrade perl; the core is enough
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        slurmctld slurmd slurm-client munge slurmdbd mariadb-server-core
}

wait_for() {
    for _ in $(seq 100); do timeout 10 "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
    echo "timed out: $*" >&2
    return 1
}

# mariadb-install-db needs a program of another package: the system tables are made by hand
start_database() {
    if [ ! -d "$dir/db/mysql" ]; then
        mkdir -p "$dir/db/mysql"
        { echo "use mysql;"; cat /usr/share/mysql/mysql_system_tables.sql /usr/share/mysql/mysql_system_tables_data.sql; } |
            mariadbd --no-defaults --bootstrap --user="$me" --datadir="$dir/db" --skip-grant-tables >"$dir/log/db" 2>&1
    fi
    mariadbd --no-defaults --user="$me" --datadir="$dir/db" --socket="$dir/run/db.sock" --skip-networking \
        --skip-grant-tables --pid-file="$dir/run/db.pid" --innodb-buffer-pool-size=32M --innodb-lock-wait-timeout=900 \
        >>"$dir/log/db" 2>&1 &
    wait_for test -S "$dir/run/db.sock"
    (umask 077; cat >"$dir/slurmdbd.conf" <<CONF
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=$me
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
LogFile=$dir/log/slurmdbd
PidFile=$dir/run/slurmdbd.pid
CONF
    )
    MYSQL_UNIX_PORT="$dir/run/db.sock" slurmdbd
}

write_configuration() {
    cat >"$dir/slurm.conf" <<CONF
ClusterName=assd
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStoragePass=$dir/munge/socket
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
KillWait=5
SlurmdTimeout=15
MinJobAge=300
GresTypes=gpu
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld
SlurmdLogFile=$dir/log/slurmd.%n
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16820 CPUs=2 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=16821 CPUs=2 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
CONF
    # a GPU's file must be a device: a terminal is one that is always there
    printf 'NodeName=n%s Name=gpu File=/dev/tty[0-1]\n' 1 2 >"$dir/gres.conf"
}

up() {
    mkdir -p "$dir"/{munge,state,log,run}
    [ -f "$dir/munge/key" ] || (umask 077; head -c 128 /dev/urandom >"$dir/munge/key")
    munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/run/munged.pid" \
        --log-file="$dir/log/munged" --seed-file="$dir/munge/seed" --num-threads=2
    start_database
    write_configuration
    wait_for sacctmgr -n -i add cluster assd
    slurmctld
    for node in n1 n2; do slurmd -N $node; done
    for _ in $(seq 120); do [ "$(sinfo -h -N -p main -o %t | grep -cx idle)" -eq 2 ] && break; sleep 0.25; done
    sinfo -N -p main -o '%N %t %c %G'
    echo "export SLURM_CONF=$SLURM_CONF"
}

down() {
    timeout 10 scancel -u "$me" || true
    sleep 1
    for file in "$dir"/run/slurmd.*.pid "$dir"/run/{slurmctld,slurmdbd,db,munged}.pid; do
        [ -f "$file" ] || continue
        pid=$(cat "$file")
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
        kill -9 "$pid" 2>/dev/null || true
    done
}

me=$(id -un) host=$(hostname -s)
if [ "$action" != install ]; then
    dir=$(realpath -m "$2")
    export SLURM_CONF="$dir/slurm.conf"
fi
"$action"
