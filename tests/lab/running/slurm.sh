#!/bin/bash
# A Slurm of one node in a folder: slurm.sh up FOLDER [PORT], slurm.sh down FOLDER; slurm.sh node
# FOLDER starts the node's daemon where it was killed. As root, on Debian with slurm-wlm and munge
# (apt-get install --no-install-recommends slurm-wlm munge).
set -e
home=$2
export SLURM_CONF=$home/slurm.conf
if [ "$1" = down ]; then
    for name in slurmd ctld munged; do
        [ -f "$home/run/$name.pid" ] && kill "$(cat "$home/run/$name.pid")"
    done
    exit 0
fi
if [ "$1" = node ]; then
    exec slurmd
fi
host=$(hostname)
mkdir -p "$home/state" "$home/spool" "$home/run"
cat >"$SLURM_CONF" <<CONFIGURATION
ClusterName=test
SlurmctldHost=$host
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort=${3:-16817}
SlurmdPort=$((${3:-16817} + 1))
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/run/ctld.pid
SlurmdPidFile=$home/run/slurmd.pid
SlurmctldLogFile=$home/ctld.log
SlurmdLogFile=$home/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
SlurmdTimeout=6
SchedulerParameters=batch_sched_delay=1,sched_interval=2
NodeName=$host CPUs=4 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONFIGURATION
dd if=/dev/urandom of="$home/munge.key" bs=1024 count=1 2>/dev/null
chmod 600 "$home/munge.key"
munged --force --key-file="$home/munge.key" --socket="$home/munge.socket" \
    --pid-file="$home/run/munged.pid" --log-file="$home/munged.log" --seed-file="$home/munge.seed"
slurmctld -c
slurmd -c
for _ in $(seq 50); do
    sinfo -h -o %T | grep -q idle && exit 0
    sleep 0.2
done
tail "$home"/*.log >&2
exit 1
