//! Interface names as names of pins: bpffs refuses a dot, which VLAN devices have.

/// The pin's name of an interface.
pub(super) fn pin_name(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

/// The interface of a pin.
pub(super) fn interface_name(pin: &str) -> String {
    pin.replace("%2e", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_survive_the_round_trip() {
        for name in ["eth0", "eth0.100", "br-lan", "a%2eb", "x%", "%25.", "."] {
            let pin = pin_name(name);
            assert!(!pin.contains('.'), "{pin} would be refused by bpffs");
            assert_eq!(interface_name(&pin), name);
        }
    }
}
