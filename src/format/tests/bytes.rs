use crate::format::bytes::{self, Get, Put, check_number};
use crate::format::{FormatError, NUMBER_MAX};

#[test]
fn integers_are_little_endian_and_read_back() {
    let mut out = [0xAA; 17];
    let mut put = Put::new(&mut out);
    put.u8(0x01).u16(0x0302).u32(0x0706_0504).u64(0x0F0E_0D0C_0B0A_0908).bytes(&[0x10]);
    assert_eq!(put.len(), 16);
    let expected: Vec<u8> = (0x01..=0x10).chain([0xAA]).collect();
    assert_eq!(out, *expected);

    let mut get = Get(&out);
    assert_eq!(get.u8(), Ok(0x01));
    assert_eq!(get.u16(), Ok(0x0302));
    assert_eq!(get.u32(), Ok(0x0706_0504));
    assert_eq!(get.u64(), Ok(0x0F0E_0D0C_0B0A_0908));
    assert_eq!(get.array(), Ok([0x10]));
    assert_eq!(get.bytes(1), Ok(&[0xAA][..]));
    assert!(get.0.is_empty());
}

#[test]
fn a_read_that_does_not_fit_takes_nothing() {
    let mut get = Get(&[1, 2, 3]);
    assert_eq!(get.u64(), Err(FormatError::Truncated));
    assert_eq!(get.u32(), Err(FormatError::Truncated));
    assert_eq!(get.bytes(usize::MAX), Err(FormatError::Truncated));
    assert_eq!(get.array::<4>(), Err(FormatError::Truncated));
    assert_eq!(get.bytes(3), Ok(&[1, 2, 3][..]));
    assert_eq!(get.u8(), Err(FormatError::Truncated));
    assert_eq!(get.bytes(0), Ok(&[][..]));
}

#[test]
#[should_panic(expected = "range end index 5 out of range")]
fn a_write_that_does_not_fit_is_a_bug_of_ours() {
    Put::new(&mut [0; 4]).u8(0).u32(0);
}

#[test]
fn the_checksum_is_the_one_of_zlib_whatever_the_pieces() {
    assert_eq!(bytes::crc32(&[b"123456789"]), 0xCBF4_3926);
    assert_eq!(bytes::crc32(&[b"1234", b"", b"56789"]), 0xCBF4_3926);
    assert_eq!(bytes::crc32(&[]), 0);
    assert_eq!(super::crc32(&[b"1234", b"56789"]), 0xCBF4_3926);
}

#[test]
fn a_number_leaves_room_for_sums() {
    let refused = Err(FormatError::Field("number"));
    assert_eq!(check_number(0, 1, "number"), refused);
    assert_eq!(check_number(1, 1, "number"), Ok(()));
    assert_eq!(check_number(NUMBER_MAX, 1, "number"), Ok(()));
    assert_eq!(check_number(NUMBER_MAX + 1, 0, "number"), refused);
    assert_eq!(check_number(u64::MAX, 0, "number"), refused);
}
