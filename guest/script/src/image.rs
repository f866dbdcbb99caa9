//! The script in the guest's image. Firmware gets no command line, so the script is written into a copy
//! of the image, behind a mark.

/// The mark in front of the room, two numbers in little-endian order.
pub const MARK: [u64; 2] = [u64::from_le_bytes(*b"script o"), u64::from_le_bytes(*b"f guest:")];

/// Room for the script and a NUL.
pub const ROOM: usize = 4096;

/// Why a script cannot be written into an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The image is not the guest's, or contains the mark twice.
    Image,
    /// The script is too long, or contains a NUL.
    Script,
}

impl core::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Image => "not an image of the test guest",
            Self::Script => "a script that is too long for the image, or contains a NUL",
        })
    }
}

impl core::error::Error for NoRoom {}

/// Writes a script into an image.
///
/// # Errors
/// [`NoRoom`]; the image is unchanged then.
pub fn write(image: &mut [u8], script: &str) -> Result<(), NoRoom> {
    if script.len() >= ROOM || script.contains('\0') {
        return Err(NoRoom::Script);
    }
    let mut mark = [0; 16];
    let (first, second) = mark.split_at_mut(8);
    first.copy_from_slice(&MARK[0].to_le_bytes());
    second.copy_from_slice(&MARK[1].to_le_bytes());
    let mut places = image.windows(mark.len()).enumerate().filter(|(_, bytes)| *bytes == mark);
    let (Some((at, _)), None) = (places.next(), places.next()) else {
        return Err(NoRoom::Image);
    };
    let room = image.get_mut(at + mark.len()..).and_then(|rest| rest.get_mut(..ROOM));
    let room = room.ok_or(NoRoom::Image)?;
    room.fill(0);
    for (byte, written) in room.iter_mut().zip(script.bytes()) {
        *byte = written;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn image() -> Vec<u8> {
        let mut image = vec![7; 100];
        MARK.iter().for_each(|number| image.extend(number.to_le_bytes()));
        image.extend([0; ROOM]);
        image.push(7);
        image
    }

    #[test]
    fn the_script_follows_the_mark_and_ends_with_a_nul() {
        let mut image = image();
        write(&mut image, "say a longer one").unwrap();
        write(&mut image, "say b").unwrap();
        assert_eq!(image[116..122], *b"say b\0");
        assert!(image[122..116 + ROOM].iter().all(|byte| *byte == 0));
        assert_eq!((image.len(), image[116 + ROOM]), (117 + ROOM, 7));
    }

    #[test]
    fn a_script_that_does_not_fit_leaves_the_image_unchanged() {
        let before = image();
        let mut same = before.clone();
        let long: std::string::String = core::iter::repeat_n('x', ROOM).collect();
        assert_eq!(write(&mut same, &long), Err(NoRoom::Script));
        assert_eq!(write(&mut same, "say \0"), Err(NoRoom::Script));
        assert_eq!(same, before);
        let mut twice = before.clone();
        twice.extend(&before);
        assert_eq!(write(&mut twice, "say x"), Err(NoRoom::Image));
        assert_eq!(write(&mut [0; 100], "say x"), Err(NoRoom::Image));
        let mut short = before[..before.len() - 2].to_vec();
        assert_eq!(write(&mut short, "say x"), Err(NoRoom::Image));
    }
}
