//! The fields of a struct in bytes, in their order and in the machine's own byte order.

use super::Invalid;

/// Takes fields from the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

/// Puts fields at the front of what is left. What finds no place is left out.
pub(super) struct Writer<'a>(pub(super) &'a mut [u8]);

impl Reader<'_> {
    #[inline(always)]
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], Invalid> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Invalid)?;
        self.0 = rest;
        Ok(*field)
    }
}

impl Writer<'_> {
    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, field: [u8; N]) -> &mut Self {
        let rest = core::mem::take(&mut self.0);
        if let Some((place, rest)) = rest.split_first_chunk_mut() {
            *place = field;
            self.0 = rest;
        }
        self
    }
}

/// A field of a struct.
pub(super) trait Field: Sized {
    fn read(from: &mut Reader<'_>) -> Result<Self, Invalid>;
    fn write(&self, to: &mut Writer<'_>);
}

impl<const N: usize> Field for [u8; N] {
    #[inline(always)]
    fn read(from: &mut Reader<'_>) -> Result<Self, Invalid> {
        from.take()
    }

    #[inline(always)]
    fn write(&self, to: &mut Writer<'_>) {
        to.put(*self);
    }
}

macro_rules! integers {
    ($($name:ident)*) => {
        impl Reader<'_> {
            $(#[inline(always)]
            pub(super) fn $name(&mut self) -> Result<$name, Invalid> {
                self.take().map($name::from_ne_bytes)
            })*
        }

        impl Writer<'_> {
            $(#[inline(always)]
            pub(super) fn $name(&mut self, field: $name) -> &mut Self {
                self.put(field.to_ne_bytes())
            })*
        }

        $(impl Field for $name {
            #[inline(always)]
            fn read(from: &mut Reader<'_>) -> Result<Self, Invalid> {
                from.$name()
            }

            #[inline(always)]
            fn write(&self, to: &mut Writer<'_>) {
                to.$name(*self);
            }
        })*
    };
}

integers! { u8 u16 u32 u64 i32 }
