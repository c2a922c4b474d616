//! What cannot be: too little memory, kernels that fail, rows that break the limits, parts that are missing.

use amoeba_backend::{Device, DeviceSampler, Executable, LoadOptions, Row, gpu};
use amoeba_backend_cuda::{Error, Libraries, Machine, Missing};
use amoeba_kernels::sample::Sampling;

use crate::fake_cuda::{Fake, on_fake};
use crate::{load, load_with, options, row, rows};

#[test]
fn what_does_not_fit_is_refused_before_anything_is_sent() {
    // Less than is left alone for the driver, and a little more.
    on_fake(
        "refusals::what_does_not_fit_is_refused_before_anything_is_sent",
        &[("FAKE_CUDA_MEMORY", "268800000")],
        || match load_with(&options(Fake::build().kernels)).map(|_| ()) {
            Err(error @ Error::Gpu(gpu::Error::NoFit { .. })) => {
                let said = error.to_string();
                assert!(said.contains("cuda:0 (fibers") && said.contains("too few"), "{said}");
            }
            other => panic!("{other:?}"),
        },
    );
}

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
fn bad_rows_are_refused_as_on_any_device() {
    on_fake("refusals::bad_rows_are_refused_as_on_any_device", &[], || {
        let mut cuda = load();
        assert!(cuda.step(&[], None).is_err());
        assert!(cuda.step(&rows(0..21), None).is_err());
        assert!(cuda.step(&[Row { token: 1 << 20, ..row(0) }], None).is_err());
        assert!(cuda.step(&[row(64)], None).is_err());
        cuda.step(&[row(0)], None).unwrap();
    });
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

#[test]
fn a_draw_that_fails_is_an_error() {
    on_fake("refusals::a_draw_that_fails_is_an_error", &[("FAKE_CUDA_FAIL", "sample_scan")], || {
        let mut cuda = load();
        cuda.begin(0, &Sampling::greedy(), &[5]).unwrap();
        let said = cuda.enqueue(&[row(0)]).unwrap_err().to_string();
        assert!(said.contains("cuda:0 (fibers") && said.contains("CUDA_ERROR_LAUNCH_FAILED"), "{said}");
    });
}
