//! Estimates the quality setting from a quantisation table.

/// Luma quantisation at quality 50, ITU-T T.81 table K.1, in zigzag order.
#[rustfmt::skip]
const LUMA: [u16; 64] = [
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40,
    26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51,
    56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87,
    95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
];

/// The quantisation tables of one JPEG, by slot, in zigzag order.
#[derive(Default)]
pub(super) struct Tables([Option<[u16; 64]>; 4]);

impl Tables {
    /// Reads the body of a DQT segment (T.81 B.2.4.1); stops where it is damaged.
    pub(super) fn define(&mut self, mut body: &[u8]) {
        while let Some((&id, rest)) = body.split_first() {
            let wide = id >> 4 != 0;
            let Some((values, rest)) = rest.split_at_checked(if wide { 128 } else { 64 }) else {
                return;
            };
            let mut table = [0; 64];
            if wide {
                for (entry, value) in table.iter_mut().zip(values.chunks_exact(2)) {
                    *entry = value.iter().fold(0, |sum, &b| sum << 8 | u16::from(b));
                }
            } else {
                for (entry, &value) in table.iter_mut().zip(values) {
                    *entry = value.into();
                }
            }
            if let Some(slot) = self.0.get_mut(usize::from(id & 15)) {
                *slot = Some(table);
            }
            body = rest;
        }
    }

    /// The quality of slot `id`; `None` if it was never defined.
    pub(super) fn quality(&self, id: u8) -> Option<u8> {
        self.0.get(usize::from(id))?.as_ref().map(estimate)
    }
}

/// The quality whose table, as scaled by libjpeg's `jpeg_add_quant_table`, has the least squared distance. Exact for
/// libjpeg's own tables; for others (Photoshop, cameras) the nearest.
fn estimate(table: &[u16; 64]) -> u8 {
    let distance = |quality: &u8| -> u64 {
        let scale = scale(*quality);
        let scaled = LUMA.iter().map(|&base| ((u32::from(base) * scale + 50) / 100).clamp(1, 255));
        table.iter().zip(scaled).map(|(&entry, scaled)| u64::from(u32::from(entry).abs_diff(scaled)).pow(2)).sum()
    };
    // Several low qualities clamp to the same table: take the highest of them.
    (1..=100).rev().min_by_key(distance).unwrap_or(1)
}

/// `jpeg_quality_scaling`: the percentage by which the table of quality 50 is scaled.
fn scale(quality: u8) -> u32 {
    let quality = u32::from(quality.clamp(1, 100));
    if quality < 50 { 5000 / quality } else { 200 - 2 * quality }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(quality: u8) -> [u16; 64] {
        LUMA.map(|base| ((u32::from(base) * scale(quality) + 50) / 100).clamp(1, 255) as u16)
    }

    #[test]
    fn every_libjpeg_quality_is_found_again() {
        for quality in 1..=100 {
            let found = estimate(&table(quality));
            assert_eq!(table(found), table(quality), "quality {quality}, found {found}");
        }
        assert_eq!(estimate(&table(75)), 75);
        assert_eq!(estimate(&table(100)), 100);
    }

    #[test]
    fn segments_with_two_tables_and_wide_entries_are_read() {
        let mut body = vec![0x00];
        body.extend(table(90).map(|v| v as u8));
        body.push(0x11);
        body.extend(table(40).iter().flat_map(|v| v.to_be_bytes()));
        let mut tables = Tables::default();
        tables.define(&body);
        assert_eq!(tables.quality(0), Some(90));
        assert_eq!(tables.quality(1), Some(40));
        assert_eq!(tables.quality(2), None);
        assert_eq!(tables.quality(200), None);
    }

    #[test]
    fn a_cut_segment_defines_nothing() {
        let mut tables = Tables::default();
        tables.define(&[0; 64]);
        assert_eq!(tables.quality(0), None);
    }
}
