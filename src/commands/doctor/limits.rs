//! The kernel's limits on this process, from `/proc` and the control groups (both versions: Linux
//! Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A v1 group without a limit shows the largest page-aligned number.
const V1_UNLIMITED: u64 = 1 << 60;

/// Limits of this process.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limits {
    /// CPUs granted by the control groups: 1.5 is one and a half CPUs.
    pub(super) cpu_quota: Option<f64>,
    /// The smallest memory limit, in bytes, and its source.
    pub(super) memory: Option<(u64, String)>,
    /// Memory available now without swapping, in bytes.
    pub(super) available: Option<u64>,
}

impl Limits {
    /// Reads them below `root`: `/`, or a test's folder.
    pub(super) fn read(root: &Path) -> Self {
        let groups = groups(root);
        let quotas = groups.iter().filter_map(|group| quota_v2(group).or_else(|| quota_v1(group)));
        let address_space = address_space(root).map(|bytes| (bytes, "the address space limit, ulimit -v".to_owned()));
        let machine = meminfo(root, "MemTotal:").map(|bytes| (bytes, "the machine's memory".to_owned()));
        let memory = groups.iter().filter_map(|group| memory(root, group)).chain(address_space).chain(machine);
        Self {
            cpu_quota: quotas.min_by(f64::total_cmp),
            memory: memory.min_by_key(|&(bytes, _)| bytes),
            available: meminfo(root, "MemAvailable:"),
        }
    }
}

/// The folders of this process's control groups, with all parents: a limit applies to all groups below it.
fn groups(root: &Path) -> Vec<PathBuf> {
    let own = read(&root.join("proc/self/cgroup"));
    let mounts = read(&root.join("proc/self/mountinfo"));
    let mut groups = Vec::new();
    for mount in mounts.lines().filter_map(Mount::parse) {
        // hierarchy-ID:controllers:path; version 2 has no controllers (cgroups(7)).
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            if !mount.holds(controllers) {
                continue;
            }
            let top = root.join(mount.point.trim_start_matches('/'));
            // A container may see its group's path on the host, of which only the end is mounted.
            let below = Path::new(path).strip_prefix(mount.top).unwrap_or(Path::new(""));
            let own = top.join(below);
            groups.extend(own.ancestors().take_while(|folder| folder.starts_with(&top)).map(Path::to_path_buf));
        }
    }
    groups
}

/// A mounted hierarchy of control groups (proc_pid_mountinfo(5)).
struct Mount<'a> {
    /// The group at the mount point.
    top: &'a str,
    point: &'a str,
    version_2: bool,
    /// Of version 1: the controllers, among other options.
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut kind = kind.split(' ');
        let version_2 = match kind.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        Some(Self { top: place.next()?, point: place.next()?, version_2, options: kind.nth(1)? })
    }

    fn holds(&self, controllers: &str) -> bool {
        if self.version_2 {
            return controllers.is_empty();
        }
        self.options.split(',').any(|option| {
            matches!(option, "memory" | "cpu") && controllers.split(',').any(|controller| controller == option)
        })
    }
}

fn memory(root: &Path, group: &Path) -> Option<(u64, String)> {
    ["memory.max", "memory.limit_in_bytes"].iter().find_map(|name| {
        let file = group.join(name);
        let bytes = number(&file).filter(|&bytes| bytes < V1_UNLIMITED)?;
        let shown = Path::new("/").join(file.strip_prefix(root).unwrap_or(&file));
        Some((bytes, shown.display().to_string()))
    })
}

fn quota_v2(group: &Path) -> Option<f64> {
    let text = read(&group.join("cpu.max"));
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

fn quota_v1(group: &Path) -> Option<f64> {
    // Without a quota it is -1, which does not parse as `u64`.
    ratio(number(&group.join("cpu.cfs_quota_us"))?, number(&group.join("cpu.cfs_period_us"))?)
}

fn ratio(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| quota as f64 / period as f64)
}

/// The soft limit RLIMIT_AS, in bytes.
fn address_space(root: &Path) -> Option<u64> {
    let limits = read(&root.join("proc/self/limits"));
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Resident memory of this process, in bytes.
pub(super) fn resident(root: &Path) -> Option<u64> {
    kilobytes(&root.join("proc/self/status"), "VmRSS:")
}

/// A field of `/proc/meminfo`, in bytes.
fn meminfo(root: &Path, field: &str) -> Option<u64> {
    kilobytes(&root.join("proc/meminfo"), field)
}

/// A field of a file of `/proc`, in bytes.
fn kilobytes(file: &Path, field: &str) -> Option<u64> {
    let text = read(file);
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn number(file: &Path) -> Option<u64> {
    read(file).trim().parse().ok()
}

/// A file that cannot be read sets no limit: not every kernel has every file.
fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A file system root with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let meminfo = ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n");
        for (name, text) in [meminfo].iter().chain(files) {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn read_limits(files: &[(&str, &str)]) -> Limits {
        Limits::read(root(files).path())
    }

    const V2: (&str, &str) =
        ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");

    #[test]
    fn without_control_groups_the_machine_is_the_limit() {
        let limits = read_limits(&[]);
        assert_eq!(limits.cpu_quota, None);
        assert_eq!(limits.memory, Some((16 * GIB, "the machine's memory".into())));
        assert_eq!(limits.available, Some(8 * GIB));
    }

    #[test]
    fn version_2_takes_the_smallest_of_the_group_and_its_parents() {
        let limits = read_limits(&[
            V2,
            ("proc/self/cgroup", "0::/pod/main\n"),
            ("sys/fs/cgroup/pod/main/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/main/cpu.max", "300000 100000\n"),
            ("sys/fs/cgroup/pod/memory.max", "536870912\n"),
            ("sys/fs/cgroup/pod/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(limits.cpu_quota, Some(1.5));
        assert_eq!(limits.memory, Some((GIB / 2, "/sys/fs/cgroup/pod/memory.max".into())));
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_top() {
        let limits = read_limits(&[
            V2,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ]);
        assert_eq!((limits.cpu_quota, limits.memory.unwrap().0), (None, GIB));
    }

    #[test]
    fn version_1_finds_each_controller_where_it_is_mounted() {
        let mounts = "31 30 0:28 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
                      32 30 0:29 /docker/ab /sys/fs/cgroup/memory ro shared:1 - cgroup cgroup rw,memory\n\
                      33 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      34 30 0:31 / /home rw - ext4 /dev/sda1 rw\n";
        let mut files = vec![
            ("proc/self/mountinfo", mounts),
            ("proc/self/cgroup", "4:cpu,cpuacct:/docker/ab\n3:memory:/docker/ab/inner\n0::/\nnonsense\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "268435456\n"),
        ];
        let limits = read_limits(&files);
        assert_eq!(limits.cpu_quota, Some(0.5));
        assert_eq!(limits.memory, Some((GIB / 4, "/sys/fs/cgroup/memory/inner/memory.limit_in_bytes".into())));

        files.truncate(5);
        files[2].1 = "-1\n";
        let limits = read_limits(&files);
        assert_eq!((limits.cpu_quota, limits.memory.unwrap().0), (None, 16 * GIB));
    }

    #[test]
    fn an_address_space_limit_counts() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max resident set          unlimited            unlimited            bytes     \n\
                    Max address space         209715200            unlimited            bytes     \n";
        let limits = read_limits(&[("proc/self/limits", text)]);
        assert_eq!(limits.memory, Some((200 << 20, "the address space limit, ulimit -v".into())));
        let unlimited = text.replace("209715200", "unlimited");
        assert_eq!(read_limits(&[("proc/self/limits", &unlimited)]).memory.unwrap().0, 16 * GIB);
    }
}
