//! What cannot be: kernels that fail, parts that are missing.

use amoeba_backend::{Device, Executable, LoadOptions};
use amoeba_backend_cuda::{Error, Libraries, Machine, Missing};

use crate::fake_cuda::{Fake, on_fake};
use crate::{load, load_with, options, row};

#[test]
fn a_kernel_that_fails_is_an_error_and_stays_one() {
    on_fake(
        "refusals::a_kernel_that_fails_is_an_error_and_stays_one",
        &[("FAKE_CUDA_FAIL", "attention_one")],
        || {
            let mut cuda = load();
            for position in 0..2 {
                let said = cuda.step(&[row(position)], None).unwrap_err().to_string();
                assert!(
                    said.contains("cuda:0 (fibers") && said.contains("CUDA_ERROR_LAUNCH_FAILED"),
                    "{said}"
                );
            }
        },
    );
}

#[test]
fn what_is_missing_is_named() {
    let missing = |settings: &[(&str, &str)], expected: fn(&Missing) -> bool| {
        let test = "refusals::what_is_missing_is_named";
        if std::env::var_os("FAKE_NVRTC_INCLUDE").is_none() {
            return on_fake(test, settings, || {});
        }
        let ours =
            settings.iter().all(|(name, value)| std::env::var(name).is_ok_and(|found| found == *value));
        if ours {
            let machine = Machine::find(&Libraries::default());
            assert!(expected(&machine.devices.unwrap_err()));
            assert!(matches!(load_with(&options(Fake::build().kernels)), Err(Error::Missing(_))));
        }
    };
    missing(&[("FAKE_CUDA_DEVICES", "0")], |missing| *missing == Missing::Device);
    missing(&[("FAKE_CUDA_VERSION", "12020")], |missing| *missing == Missing::TooOld(12020));
}

#[test]
fn devices_are_described_and_chosen_by_number() {
    let settings = [("FAKE_CUDA_DEVICES", "2"), ("FAKE_CUDA_MAJOR", "7")];
    on_fake("refusals::devices_are_described_and_chosen_by_number", &settings, || {
        let machine = Machine::find(&Libraries::default());
        let (driver, devices) = machine.devices.unwrap();
        assert_eq!((driver.version().as_str(), devices.len()), ("13.0", 2));
        assert_eq!((devices[1].arch().as_str(), devices[1].supported()), ("sm_70", false));
        assert_eq!(machine.nvrtc.unwrap().version(), "13.0");
        let on = |device| {
            load_with(&LoadOptions { device: Device::Cuda(device), ..options(Fake::build().kernels) })
        };
        assert!(matches!(on(1), Err(Error::TooOld(_))));
        assert!(matches!(on(2), Err(Error::NoSuchDevice { asked: 2, found: 2 })));
    });
}
