// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
// jpeglib.h needs stdio.h before it, jerror.h's list of messages too.
#include <jerror.h>
#include <jpeglib.h>

#include <csetjmp>
#include <cstdlib>
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
  char message[JMSG_LENGTH_MAX] = "";  // of the error, or of the first oddity
  bool out_of_memory = false;
  int64_t oddities = 0;
  jpeg_progress_mgr progress{};
  std::vector<uint8_t> row;

  JpegReader() = default;
  ~JpegReader() { jpeg_destroy_decompress(&jpeg); }
  JpegReader(const JpegReader&) = delete;
};

void on_exit(j_common_ptr info) {
  auto* reader = static_cast<JpegReader*>(info->client_data);
  info->err->format_message(info, reader->message);
  reader->out_of_memory = info->err->msg_code == JERR_OUT_OF_MEMORY;
  std::longjmp(reader->jump, 1);
}

// Warnings about bytes that no pixel comes from. Every other one is damage that libjpeg papers over.
bool harmless(int message) {
  switch (message) {
    case JWRN_ADOBE_XFORM:
    case JWRN_BOGUS_ICC:
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_NOT_SEQUENTIAL:
      return true;
    default:
      return false;
  }
}

// Below zero: a warning.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  if (!harmless(info->err->msg_code)) on_exit(info);
  auto* reader = static_cast<JpegReader*>(info->client_data);
  if (reader->oddities++ == 0) info->err->format_message(info, reader->message);
}

// Each scan of a progressive file may cover the whole picture: a small file of many scans would keep a core for minutes.
void on_progress(j_common_ptr info) {
  constexpr int kMaxScans = 100;
  auto* jpeg = reinterpret_cast<j_decompress_ptr>(info);
  if (jpeg->input_scan_number <= kMaxScans) return;
  auto* reader = static_cast<JpegReader*>(info->client_data);
  std::snprintf(reader->message, sizeof reader->message, "more than %d scans", kMaxScans);
  std::longjmp(reader->jump, 1);
}

bool start(JpegReader& r, std::span<const uint8_t> bytes) {
  r.jpeg.err = jpeg_std_error(&r.errors);
  r.jpeg.client_data = &r;
  r.errors.error_exit = on_exit;
  r.errors.emit_message = on_message;
  if (setjmp(r.jump)) return false;
  jpeg_create_decompress(&r.jpeg);
  r.progress.progress_monitor = on_progress;
  r.jpeg.progress = &r.progress;
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

// As JpegReader, of a file that is made.
struct JpegWriter {
  jpeg_compress_struct jpeg{};
  jpeg_error_mgr errors{};
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = "";
  unsigned char* bytes = nullptr;  // libjpeg's, by malloc
  unsigned long size = 0;
  std::vector<uint8_t> row;

  JpegWriter() = default;
  ~JpegWriter() {
    jpeg_destroy_compress(&jpeg);
    std::free(bytes);
  }
  JpegWriter(const JpegWriter&) = delete;
};

void on_write_exit(j_common_ptr info) {
  auto* writer = static_cast<JpegWriter*>(info->client_data);
  info->err->format_message(info, writer->message);
  std::longjmp(writer->jump, 1);
}

// False: libjpeg could not; the writer's message says why.
bool encode(JpegWriter& w, const Image& image, int quality) {
  w.jpeg.err = jpeg_std_error(&w.errors);
  w.errors.error_exit = on_write_exit;
  w.jpeg.client_data = &w;
  if (setjmp(w.jump) != 0) return false;
  jpeg_create_compress(&w.jpeg);
  w.jpeg.client_data = &w;
  jpeg_mem_dest(&w.jpeg, &w.bytes, &w.size);
  w.jpeg.image_width = static_cast<JDIMENSION>(image.width);
  w.jpeg.image_height = static_cast<JDIMENSION>(image.height);
  w.jpeg.input_components = static_cast<int>(image.channels);
  w.jpeg.in_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&w.jpeg);
  jpeg_set_quality(&w.jpeg, quality, TRUE);
  jpeg_start_compress(&w.jpeg, TRUE);
  const int64_t plane = image.height * image.width;
  for (int64_t y = 0; y < image.height; ++y) {
    for (int64_t x = 0; x < image.width; ++x)
      for (int64_t c = 0; c < image.channels; ++c)
        w.row[static_cast<size_t>(x * image.channels + c)] =
            image.pixels[static_cast<size_t>(c * plane + y * image.width + x)];
    JSAMPROW row = w.row.data();
    jpeg_write_scanlines(&w.jpeg, &row, 1);
  }
  jpeg_finish_compress(&w.jpeg);
  return true;
}

Error damaged(const std::string& path, const JpegReader& r, std::span<const uint8_t> bytes) {
  if (r.out_of_memory) return out_of_memory(path);
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

ImageShape jpeg_shape(const std::string& path, std::span<const uint8_t> bytes, int64_t max_pixels) {
  JpegReader r;
  if (!start(r, bytes)) throw damaged(path, r, bytes);
  const ImageShape shape = checked_shape(path, r);
  expect_bounded(path, shape.height, shape.width, r.jpeg.num_components * 2, max_pixels);
  return upright(shape, orientation(r));
}

Image decode_jpeg(const std::string& path, std::span<const uint8_t> bytes, int64_t max_pixels) {
  JpegReader r;
  if (!start(r, bytes)) throw damaged(path, r, bytes);
  const auto [channels, height, width] = checked_shape(path, r);
  // A progressive file's coefficients, two bytes each, are kept until its last scan.
  expect_bounded(path, height, width, r.jpeg.num_components * 2, max_pixels);
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
  Image picture = upright(std::move(image), turned);
  if (r.oddities > 0) picture.remark = remark_of("libjpeg", r.message, r.oddities);
  return picture;
}

std::string encode_jpeg(const Image& image, int quality) {
  LOCKSTEP_ASSERT((image.channels == 1 || image.channels == 3) && image.height > 0 && image.width > 0 &&
                      image.height <= kMaxImageSide && image.width <= kMaxImageSide && quality >= 1 &&
                      quality <= 100 &&
                      image.pixels.size() == static_cast<size_t>(image.channels * image.height * image.width),
                  "[{}, {}, {}] of {} bytes, quality {}", image.channels, image.height, image.width,
                  image.pixels.size(), quality);
  JpegWriter w;
  w.row.resize(static_cast<size_t>(image.channels * image.width));
  if (!encode(w, image, quality))
    throw Error(Exit::io, "E_MEMORY", fmt::format("no JPEG file could be made: {}", w.message));
  return {reinterpret_cast<const char*>(w.bytes), w.size};
}

}  // namespace lockstep
