// SPDX-License-Identifier: Apache-2.0
// TFRecord framing (https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details"):
//   uint64 length, uint32 masked CRC-32C of the length's bytes, the bytes, uint32 masked CRC-32C of them;
//   little-endian.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lockstep {

uint32_t crc32c(std::string_view bytes);         // Castagnoli, as RFC 3720 B.4 has it
uint32_t masked_crc32c(std::string_view bytes);  // rotated right by 15 bits, plus 0xa282ead8
std::string tfrecord(std::string_view bytes);

}  // namespace lockstep
