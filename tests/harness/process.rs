//! What the system says of a process.

/// A figure of a process's memory, such as `VmRSS`, in KiB.
pub fn memory(id: u32, figure: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim_start_matches(':').trim_end_matches("kB").trim().parse().unwrap()
}

/// Forgets the most memory that a process ever had: `VmHWM` begins anew.
pub fn forget_peak(id: u32) {
    std::fs::write(format!("/proc/{id}/clear_refs"), "5").unwrap();
}
