//! The programs at both ends of the pair of interfaces that leads to the block page.
//!
//! They stay with the interfaces, whoever ends, and go with them.

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        ProgramError, SchedClassifier, TcAttachType,
        tc::{NlOptions, TcAttachOptions, qdisc_add_clsact},
    },
};
use filter_common::abi::{Table, method};

use super::{DatapathError, Root, object};
use crate::sink::{
    SinkError,
    place::{FAR_NAME, Place, near_name},
};

/// Takes connections in, at the page's end.
const SINK_IN: &str = "sink_in";

/// Sends the page's answers on, at the host's end.
const SINK_OUT: &str = "sink_out";

impl Root {
    /// Attaches what takes connections in at the page's end, and sends its answers on at the host's. The
    /// calling thread is in the host's namespace. Nothing is sent there yet. How established connections are
    /// handed over, one of [`method`].
    ///
    /// # Errors
    ///
    /// The kernel refuses. What was attached goes with the interfaces.
    pub fn connect_page(&self, place: &Place) -> Result<u32, SinkError> {
        let mut ebpf = self.load_page_programs()?;
        attach(&mut ebpf, SINK_OUT, &near_name(self.netns_inode()))?;
        place.inside(|| attach(&mut ebpf, SINK_IN, FAR_NAME).map_err(SinkError::from))?;
        self.set_page_device(place.ends.near_index)?;
        Ok(method::KFUNC)
    }

    /// The programs with the shared maps; the maps of a generation are not theirs, and as small as they
    /// can be.
    fn load_page_programs(&self) -> Result<Ebpf, DatapathError> {
        let mut loader = EbpfLoader::new();
        for table in Table::ALL {
            loader.map_max_entries(table.name(), 1);
        }
        for name in [object::RULES, object::WORK] {
            loader.map_max_entries(name, 1);
        }
        for name in object::shared_names() {
            let pin = self.shared_dir().join(name);
            match pin.exists() {
                true => _ = loader.map_pin_path(name, pin),
                false => _ = loader.map_max_entries(name, 1),
            }
        }
        loader
            .load(object::OBJECT)
            .map_err(|source| DatapathError::Object {
                source: Box::new(source),
            })
    }
}

/// Loads a program and attaches it to what comes in on an interface of the calling thread's namespace.
fn attach(ebpf: &mut Ebpf, name: &'static str, interface: &str) -> Result<(), DatapathError> {
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .ok_or(ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(|source| DatapathError::Program {
            action: "find a program of the block page",
            source,
        })?;
    program.load().map_err(object::load_error)?;
    qdisc_add_clsact(interface).map_err(|error| DatapathError::Kernel {
        action: format!("make room for a program on {interface}"),
        source: std::io::Error::other(error),
    })?;
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let attached = program
        .attach_with_options(interface, TcAttachType::Ingress, options)
        .and_then(|link| program.take_link(link));
    let link = attached.map_err(|source| DatapathError::Program {
        action: "attach a program of the block page",
        source,
    })?;
    // It stays as long as its interface, and the kernel detaches it then.
    std::mem::forget(link);
    Ok(())
}
