#!/bin/busybox sh
# The first process of the virtual machine: runs each line of /tests and ends the machine. What the
# tests print goes to the second serial port, the kernel's messages to the first.
/bin/busybox --install -s /bin
export PATH=/sbin:/bin RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 none /sys/fs/cgroup
exec >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 -opost
echo "release $(uname -r)"
for module in /modules/*.ko; do
    insmod "$module" || echo "cannot load $module"
done
while read -r name command; do
    echo "begin $name"
    $command </dev/null
    status=$?
    echo
    echo "end $name $status"
done </tests
sync
poweroff -f
