// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Byte arrays with named big-endian bit fields.

use core::marker::PhantomData;

/// A fixed size structure of the device interface.
pub trait Layout: Sized {
    /// Size in bytes.
    const SIZE: usize;

    /// All bytes zero, which means "off" or "none" in every field of the PRM.
    fn zeroed() -> Self;

    /// The bytes as the device sees them.
    fn bytes(&self) -> &[u8];

    /// The bytes as the device sees them, to be filled in.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Copies the start of `bytes`; bytes that are missing are zero.
    fn from_prefix(bytes: &[u8]) -> Self {
        let mut layout = Self::zeroed();
        for (to, from) in layout.bytes_mut().iter_mut().zip(bytes) {
            *to = *from;
        }
        layout
    }

    /// Value of a field.
    #[inline(always)]
    fn get(&self, field: Field<Self>) -> u64 {
        get_bits(self.bytes(), field.bit, field.width)
    }

    /// Value of a field of at most 32 bits.
    #[inline(always)]
    fn get32(&self, field: Field<Self>) -> u32 {
        // CAST: Callers name fields of at most 32 bits; a wider one gives its low half.
        self.get(field) as u32
    }

    /// Sets a field; bits that do not fit the field are cut off.
    #[inline(always)]
    fn set(&mut self, field: Field<Self>, value: u64) {
        set_bits(self.bytes_mut(), field.bit, field.width, value);
    }

    /// [`Layout::set`] for building a value in one expression.
    #[inline(always)]
    #[must_use]
    fn with(mut self, field: Field<Self>, value: impl Into<u64>) -> Self {
        self.set(field, value.into());
        self
    }

    /// Copies another structure to where it is embedded.
    #[must_use]
    fn embed<T: Layout>(mut self, at: Field<Self>, inner: &T) -> Self {
        let start = at.bit / 8;
        if let Some(to) = self.bytes_mut().get_mut(start..start + T::SIZE) {
            to.copy_from_slice(inner.bytes());
        }
        self
    }

    /// Copies an embedded structure out.
    fn extract<T: Layout>(&self, at: Field<Self>) -> T {
        T::from_prefix(self.bytes().get(at.bit / 8..).unwrap_or(&[]))
    }
}

/// Position of a field in layout `L`.
///
/// A width of 0 marks the place of an embedded structure.
pub struct Field<L> {
    bit: usize,
    width: usize,
    layout: PhantomData<fn(L)>,
}

impl<L> Clone for Field<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Field<L> {}

impl<L: Layout> Field<L> {
    /// A field of `width` bits at `bit`.
    ///
    /// Evaluated at compile time: a field outside of its layout does not build.
    pub const fn new(bit: usize, width: usize) -> Self {
        assert!(bit + width <= L::SIZE * 8);
        assert!(bit % 8 + width <= 64);
        assert!(width != 0 || bit % 8 == 0);
        Self {
            bit,
            width,
            layout: PhantomData,
        }
    }
}

/// Positions are constants where this is inlined, so that a single load is left of it.
#[inline(always)]
fn get_bits(bytes: &[u8], bit: usize, width: usize) -> u64 {
    let (first, end) = (bit / 8, (bit + width).div_ceil(8));
    let Some(bytes) = bytes.get(first..end) else {
        return 0;
    };
    let value = match end - first {
        1 => word(bytes, |[byte]| byte.into()),
        2 => word(bytes, |word| u16::from_be_bytes(word).into()),
        3 => word(bytes, |[a, b, c]| u32::from_be_bytes([0, a, b, c]).into()),
        4 => word(bytes, |word| u32::from_be_bytes(word).into()),
        8 => word(bytes, u64::from_be_bytes),
        _ => bytes
            .iter()
            .fold(0u64, |value, byte| (value << 8) | u64::from(*byte)),
    };
    (value >> (end * 8 - bit - width)) & mask(width)
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8], value: impl FnOnce([u8; N]) -> u64) -> u64 {
    bytes.first_chunk().map_or(0, |chunk| value(*chunk))
}

/// As [`get_bits`].
#[inline(always)]
fn set_bits(bytes: &mut [u8], bit: usize, width: usize, value: u64) {
    let (first, end) = (bit / 8, (bit + width).div_ceil(8));
    let shift = end * 8 - bit - width;
    let mut value = (value & mask(width)) << shift;
    let mut keep = !(mask(width) << shift);
    let Some(bytes) = bytes.get_mut(first..end) else {
        return;
    };
    // CAST: Each time to the bytes that the field is in.
    match end - first {
        1 => change(bytes, |[byte]| [byte & keep as u8 | value as u8]),
        2 => change(bytes, |word| {
            (u16::from_be_bytes(word) & keep as u16 | value as u16).to_be_bytes()
        }),
        3 => change(bytes, |[a, b, c]| {
            let word = u32::from_be_bytes([0, a, b, c]) & keep as u32 | value as u32;
            let [_, a, b, c] = word.to_be_bytes();
            [a, b, c]
        }),
        4 => change(bytes, |word| {
            (u32::from_be_bytes(word) & keep as u32 | value as u32).to_be_bytes()
        }),
        8 => change(bytes, |word| {
            (u64::from_be_bytes(word) & keep | value).to_be_bytes()
        }),
        _ => {
            for byte in bytes.iter_mut().rev() {
                // CAST: The low byte is what is wanted.
                *byte = *byte & keep as u8 | value as u8;
                value >>= 8;
                keep >>= 8;
            }
        }
    }
}

#[inline(always)]
fn change<const N: usize>(bytes: &mut [u8], new: impl FnOnce([u8; N]) -> [u8; N]) {
    if let Some(chunk) = bytes.first_chunk_mut() {
        *chunk = new(*chunk);
    }
}

const fn mask(width: usize) -> u64 {
    if width >= 64 {
        u64::MAX
    } else {
        (1 << width) - 1
    }
}

/// Declares layouts: name, size in bytes, name in `mlx5_ifc.h` (empty if it has none), fields.
macro_rules! layouts {
    ($(
        $(#[$meta:meta])*
        $name:ident[$size:expr] $ifc:literal {
            $( $(#[$fmeta:meta])* $field:ident: $bit:expr, $width:expr; )*
        }
    )*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy)]
            #[repr(transparent)]
            pub struct $name([u8; $size]);

            impl super::Layout for $name {
                const SIZE: usize = $size;

                #[inline(always)]
                fn zeroed() -> Self {
                    Self([0; $size])
                }

                #[inline(always)]
                fn bytes(&self) -> &[u8] {
                    &self.0
                }

                #[inline(always)]
                fn bytes_mut(&mut self) -> &mut [u8] {
                    &mut self.0
                }
            }

            #[allow(dead_code, reason = "layouts name what the interface has")]
            impl $name {
                $(
                    $(#[$fmeta])*
                    pub const $field: super::Field<Self> =
                        super::Field::new($bit, $width);
                )*
            }
        )*

        /// Every field of this file, for the comparison with `mlx5_ifc.h`.
        #[cfg(test)]
        pub(crate) const LAYOUTS: &[(&str, usize, &[(&str, usize, usize)])] = &[
            $( ($ifc, $size * 8, &[ $( (stringify!($field), $bit, $width), )* ]), )*
        ];
    };
}
