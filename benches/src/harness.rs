//! The mutator in front of every contender, and the samples.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::Barrier,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    maps::{Array, LpmTrie, Map, MapData, PerCpuArray, PerCpuValues, ProgramArray, lpm_trie::Key},
    programs::{ProgramFd, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
    util::nr_cpus,
};
use memmap2::MmapOptions;

use crate::{
    contender::Kind,
    sources::{COUNT, Prefixes, Source},
};

const PROGRAMS: [&str; 7] = [
    "mutate",
    "mutate_linear",
    "empty",
    "empty_linear",
    "lpm",
    "flood",
    "drop_all",
];

/// Frames that are sent together: the kernel's own default.
const SEND_BATCH: u32 = 64;

/// The programs of the benchmark.
pub(crate) struct Harness {
    ebpf: Ebpf,
    cursor: PerCpuArray<MapData, [u32; 2]>,
    targets: [ProgramArray<MapData>; 2],
    next: u32,
    mask: u32,
}

/// What the kernel said about some runs.
pub(crate) struct Ran {
    /// XDP action of the last.
    pub(crate) action: u32,
    /// Mean of all.
    pub(crate) mean: Duration,
}

impl Harness {
    /// Loads the object file.
    pub(crate) fn load(object: &Path) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .load_file(object)
            .with_context(|| format!("cannot load {}", object.display()))?;
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        let cursor = take("CURSOR")?.try_into()?;
        let targets = [
            take("TARGET")?.try_into()?,
            take("TARGET_LINEAR")?.try_into()?,
        ];
        for name in PROGRAMS {
            let program: &mut Xdp = ebpf
                .program_mut(name)
                .with_context(|| format!("no program {name}"))?
                .try_into()?;
            program
                .load()
                .with_context(|| format!("cannot load the program {name}"))?;
        }
        Ok(Self {
            ebpf,
            cursor,
            targets,
            next: 0,
            mask: 0,
        })
    }

    /// One of the harness's own programs.
    pub(crate) fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name).context("no such program")?;
        Ok(program.try_into()?)
    }

    /// Fills the kernel's tries.
    pub(crate) fn fill_tries(&mut self, v4: &Prefixes, v6: &Prefixes) -> Result<()> {
        let mut trie: LpmTrie<_, u32, u32> = LpmTrie::try_from(self.map_mut("LPM_V4")?)?;
        for &(address, length) in &v4.all {
            let data = ((address >> 96) as u32).to_be();
            trie.insert(&Key::new(u32::from(length), data), 1, 0)?;
        }
        let mut trie: LpmTrie<_, [u8; 16], u32> = LpmTrie::try_from(self.map_mut("LPM_V6")?)?;
        for &(address, length) in &v6.all {
            trie.insert(&Key::new(u32::from(length), address.to_be_bytes()), 1, 0)?;
        }
        Ok(())
    }

    /// Puts one of its programs on an interface of the thread's namespace, until it is dropped.
    pub(crate) fn attach(&mut self, name: &str, interface: &str) -> Result<()> {
        self.program(name)?
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("cannot attach {name} to {interface}"))?;
        Ok(())
    }

    /// Lets [`Harness::send`] send to this interface of the thread's namespace.
    pub(crate) fn set_egress(&mut self, index: u32) -> Result<()> {
        let mut egress: Array<_, u32> = Array::try_from(self.map_mut("EGRESS")?)?;
        Ok(egress.set(0, index, 0)?)
    }

    /// Sends a frame `count` times, each time from the next source, as frames that live on.
    pub(crate) fn send(&mut self, frame: &[u8], count: u32) -> Result<()> {
        self.set_cursors()?;
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(SEND_BATCH),
            ..TestRunOptions::default()
        };
        self.program("flood")?
            .test_run(options)
            .context("the kernel refused to send")?;
        self.next = self.next.wrapping_add(count);
        Ok(())
    }

    fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf
            .map_mut(name)
            .with_context(|| format!("no map {name}"))
    }

    /// Lets the mutator go through these addresses: one, or [`COUNT`].
    pub(crate) fn set_sources(&mut self, sources: &[Source]) -> Result<()> {
        if sources.len() != 1 && sources.len() != COUNT {
            bail!("{} addresses", sources.len());
        }
        self.mask = sources.len() as u32 - 1;
        let Some(Map::Array(map)) = self.ebpf.map("SOURCES") else {
            bail!("no map SOURCES");
        };
        let bytes = sources.as_flattened();
        // SAFETY: no program runs while this function does, so nothing else touches the memory.
        let mut memory = unsafe {
            MmapOptions::new()
                .len(size_of_val(bytes))
                .map_mut(map.fd().as_fd().as_raw_fd())
        }
        .context("cannot map the sources")?;
        for (to, word) in memory.chunks_exact_mut(4).zip(bytes) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(())
    }

    /// Puts a program behind the mutator.
    pub(crate) fn set_target(&mut self, kind: Kind, program: &ProgramFd) -> Result<()> {
        self.targets[kind as usize]
            .set(0, program, 0)
            .context("the kernel takes no such program behind another")
    }

    /// Sends each frame `repeat` times through the mutator and what is behind it, each time from
    /// the next source; the frames come from the same sources.
    pub(crate) fn run(&mut self, kind: Kind, frames: &[Vec<u8>], repeat: u32) -> Result<Ran> {
        let mut total = Ran {
            action: 0,
            mean: Duration::ZERO,
        };
        for frame in frames {
            self.set_cursors()?;
            let options = TestRunOptions {
                data_in: Some(frame),
                repeat,
                ..TestRunOptions::default()
            };
            let name = match kind {
                Kind::Frags => "mutate",
                Kind::Linear => "mutate_linear",
            };
            let result = self
                .program(name)?
                .test_run(options)
                .context("the kernel refused a test run")?;
            total.action = result.return_value;
            total.mean += result.duration;
        }
        self.next = self.next.wrapping_add(repeat);
        Ok(total)
    }

    /// All processors start at other places.
    fn set_cursors(&mut self) -> Result<()> {
        const APART: u32 = 1 << 18;
        let cpus = nr_cpus().map_err(|(what, error)| anyhow!("{what}: {error}"))?;
        let cursors: Vec<_> = (0..cpus as u32)
            .map(|cpu| [self.next.wrapping_add(cpu * APART), self.mask])
            .collect();
        let cursors = PerCpuValues::try_from(cursors)?;
        Ok(self.cursor.set(0, cursors, 0)?)
    }

    /// Sends the frame `repeat` times on each of these processors, all at once: the mean of each.
    pub(crate) fn run_at_once(
        &mut self,
        cpus: &[usize],
        frame: &[u8],
        repeat: u32,
    ) -> Result<Vec<Duration>> {
        self.set_cursors()?;
        let mutate = &*self.program("mutate")?;
        let start = Barrier::new(cpus.len());
        thread::scope(|scope| {
            let runs: Vec<_> = cpus
                .iter()
                .map(|cpu| {
                    let start = &start;
                    scope.spawn(move || {
                        pin(*cpu)?;
                        start.wait();
                        let options = TestRunOptions {
                            data_in: Some(frame),
                            repeat,
                            ..TestRunOptions::default()
                        };
                        let result = mutate.test_run(options);
                        Ok(result.context("the kernel refused a test run")?.duration)
                    })
                })
                .collect();
            runs.into_iter()
                .map(|run| run.join().map_err(|_| anyhow!("a thread panicked"))?)
                .collect()
        })
    }
}

/// Numbers of the processors that this process may use.
pub(crate) fn all_processors() -> Result<Vec<usize>> {
    Ok((0..thread::available_parallelism()?.get()).collect())
}

/// Keeps the calling thread on one processor.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    pin_process(0, cpu)
}

/// Keeps a process of one thread on one processor; 0 is the calling thread.
pub(crate) fn pin_process(pid: libc::pid_t, cpu: usize) -> Result<()> {
    // SAFETY: a set of bits, for which zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a valid set; numbers beyond it are left out.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a valid set of the stated size.
    let result = unsafe { libc::sched_setaffinity(pid, size_of_val(&set), &raw const set) };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot stay on one processor");
    }
    Ok(())
}
