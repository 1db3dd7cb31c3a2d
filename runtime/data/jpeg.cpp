// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
// jpeglib.h needs stdio.h before it.
#include <jpeglib.h>

#include <csetjmp>
#include <cstring>

#include "kernels/core/error.h"
#include "runtime/data/codec.h"
#include "runtime/data/exif.h"

namespace lockstep {
namespace {

// Everything that lives across libjpeg's longjmp; it jumps over C frames only.
struct JpegReader {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors{};
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = "";
  std::vector<uint8_t> row;

  JpegReader() = default;
  ~JpegReader() { jpeg_destroy_decompress(&jpeg); }
  JpegReader(const JpegReader&) = delete;
};

void on_exit(j_common_ptr info) {
  auto* reader = static_cast<JpegReader*>(info->client_data);
  info->err->format_message(info, reader->message);
  std::longjmp(reader->jump, 1);
}
// Below zero: a warning, which in libjpeg is damage that it would paper over.
void on_message(j_common_ptr info, int level) {
  if (level < 0) on_exit(info);
}

bool start(JpegReader& r, std::span<const uint8_t> bytes) {
  r.jpeg.err = jpeg_std_error(&r.errors);
  r.jpeg.client_data = &r;
  r.errors.error_exit = on_exit;
  r.errors.emit_message = on_message;
  if (setjmp(r.jump)) return false;
  jpeg_create_decompress(&r.jpeg);
  jpeg_mem_src(&r.jpeg, bytes.data(), bytes.size());
  jpeg_save_markers(&r.jpeg, JPEG_APP0 + 1, 0xffff);  // EXIF
  jpeg_read_header(&r.jpeg, TRUE);
  r.jpeg.out_color_space = r.jpeg.num_components == 1   ? JCS_GRAYSCALE
                           : r.jpeg.num_components == 4 ? JCS_CMYK
                                                        : JCS_RGB;
  return true;
}

// Ink as Adobe stores it, 255 being none, to light: what its black lets through, less what its colour takes.
uint8_t light(uint8_t ink, uint8_t black) {
  const int taken = (255 - ink) * black + 128;  // divided by 255 and rounded below
  return static_cast<uint8_t>(black - ((taken >> 8) + taken) / 256);
}

bool decode(JpegReader& r, Image& image) {
  if (setjmp(r.jump)) return false;
  jpeg_start_decompress(&r.jpeg);
  const int64_t plane = image.height * image.width;
  while (r.jpeg.output_scanline < r.jpeg.output_height) {
    const int64_t y = r.jpeg.output_scanline;
    JSAMPROW row = r.row.data();
    jpeg_read_scanlines(&r.jpeg, &row, 1);
    if (r.jpeg.num_components == 4)
      for (int64_t x = 0; x < image.width; ++x)
        for (int64_t c = 0; c < 3; ++c) row[x * 3 + c] = light(row[x * 4 + c], row[x * 4 + 3]);
    for (int64_t c = 0; c < image.channels; ++c) {
      uint8_t* to = image.pixels.data() + c * plane + y * image.width;
      for (int64_t x = 0; x < image.width; ++x) to[x] = row[x * image.channels + c];
    }
  }
  jpeg_finish_decompress(&r.jpeg);
  return true;
}

Error damaged(const std::string& path, const JpegReader& r, std::span<const uint8_t> bytes) {
  const int64_t left = r.jpeg.src ? static_cast<int64_t>(r.jpeg.src->bytes_in_buffer) : 0;
  return Error(Exit::data, "E_IMAGE_JPEG", fmt::format("the JPEG file is damaged: {}", r.message))
      .at("file", path)
      .at("offset", std::max<int64_t>(0, static_cast<int64_t>(bytes.size()) - left));
}

ImageShape checked_shape(const std::string& path, const JpegReader& r) {
  const int components = r.jpeg.num_components;
  if (components != 1 && components != 3 && components != 4)
    throw Error(Exit::data, "E_IMAGE_CHANNELS",
                fmt::format("expected a JPEG of 1, 3 or 4 components, found {}", components))
        .at("file", path)
        .hint("convert it to RGB");
  return {components == 1 ? 1 : 3, r.jpeg.image_height, r.jpeg.image_width};
}

int orientation(const JpegReader& r) {
  constexpr char kExif[] = "Exif\0";  // and the string's own zero
  for (auto* marker = r.jpeg.marker_list; marker; marker = marker->next)
    if (marker->marker == JPEG_APP0 + 1 && marker->data_length >= sizeof kExif &&
        std::memcmp(marker->data, kExif, sizeof kExif) == 0)
      return exif_orientation({marker->data + sizeof kExif, marker->data_length - sizeof kExif});
  return 1;
}

}  // namespace

ImageShape jpeg_shape(const std::string& path, std::span<const uint8_t> bytes) {
  JpegReader r;
  if (!start(r, bytes)) throw damaged(path, r, bytes);
  return upright(checked_shape(path, r), orientation(r));
}

Image decode_jpeg(const std::string& path, std::span<const uint8_t> bytes) {
  JpegReader r;
  if (!start(r, bytes)) throw damaged(path, r, bytes);
  const auto [channels, height, width] = checked_shape(path, r);
  // A block of 8x8 takes a bit at least, and a component may be subsampled 4 times either way.
  if (height * width / (64 * 16 * 8) > static_cast<int64_t>(bytes.size()))
    throw Error(
        Exit::data, "E_IMAGE_JPEG",
        fmt::format("{} bytes cannot hold the {}x{} pixels of the header", bytes.size(), height, width))
        .at("file", path);
  Image image{channels, height, width, std::vector<uint8_t>(static_cast<size_t>(channels * height * width))};
  r.row.resize(static_cast<size_t>(r.jpeg.num_components * width));
  const int turned = orientation(r);  // the markers are gone after decoding
  if (!decode(r, image)) throw damaged(path, r, bytes);
  return upright(std::move(image), turned);
}

}  // namespace lockstep
