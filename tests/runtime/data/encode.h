// SPDX-License-Identifier: Apache-2.0
// PNG and JPEG files of every kind, made by the libraries themselves.
#pragma once

#include <png.h>
#include <zlib.h>

#include <cstdio>
// jpeglib.h needs stdio.h before it.
#include <jpeglib.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace lockstep::testing {

// rows: as the file stores them.
inline std::string png(int width, int height, int depth, int color, const std::vector<uint8_t>& rows,
                       bool interlaced = false, bool transparent = false) {
  std::string out;
  png_structp p = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(p);
  png_set_write_fn(
      p, &out,
      [](png_structp w, png_bytep data, size_t n) {
        static_cast<std::string*>(png_get_io_ptr(w))->append(reinterpret_cast<char*>(data), n);
      },
      nullptr);
  png_set_IHDR(p, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), depth, color,
               interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  std::array<png_color, 4> palette = {png_color{1, 2, 3}, {40, 50, 60}, {0, 255, 0}, {9, 9, 9}};
  if (color == PNG_COLOR_TYPE_PALETTE) png_set_PLTE(p, info, palette.data(), 4);
  std::array<png_byte, 4> alpha = {255, 255, 0, 255};
  if (transparent) png_set_tRNS(p, info, alpha.data(), 4, nullptr);
  png_write_info(p, info);
  const size_t row = png_get_rowbytes(p, info);
  std::vector<png_bytep> pointers;
  for (int y = 0; y < height; ++y)
    pointers.push_back(const_cast<png_bytep>(rows.data()) + static_cast<size_t>(y) * row);
  png_write_image(p, pointers.data());
  png_write_end(p, nullptr);
  png_destroy_write_struct(&p, &info);
  return out;
}

// rows: interleaved pixels of `space`; stored: the file's own, where it isn't the usual one; scans: a progressive file's.
inline std::string jpeg(int width, int height, int components, J_COLOR_SPACE space,
                        const std::vector<uint8_t>& rows, bool progressive = false,
                        J_COLOR_SPACE stored = JCS_UNKNOWN, const std::vector<jpeg_scan_info>& scans = {}) {
  jpeg_compress_struct c{};
  jpeg_error_mgr errors{};
  c.err = jpeg_std_error(&errors);
  jpeg_create_compress(&c);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&c, &bytes, &size);
  c.image_width = static_cast<JDIMENSION>(width);
  c.image_height = static_cast<JDIMENSION>(height);
  c.input_components = components;
  c.in_color_space = space;
  jpeg_set_defaults(&c);
  if (stored != JCS_UNKNOWN) jpeg_set_colorspace(&c, stored);
  jpeg_set_quality(&c, 100, TRUE);
  if (progressive) jpeg_simple_progression(&c);
  if (!scans.empty()) c.scan_info = scans.data(), c.num_scans = static_cast<int>(scans.size());
  jpeg_start_compress(&c, TRUE);
  for (int y = 0; y < height; ++y) {
    JSAMPROW row = const_cast<JSAMPROW>(rows.data()) + static_cast<size_t>(y * width * components);
    jpeg_write_scanlines(&c, &row, 1);
  }
  jpeg_finish_compress(&c);
  std::string out(reinterpret_cast<char*>(bytes), size);
  jpeg_destroy_compress(&c);
  std::free(bytes);
  return out;
}

// A whole chunk: length, type, data, check sum.
inline std::string png_chunk(const std::string& type, const std::string& data) {
  const auto number = [](uint32_t n) {
    std::string out;
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(n >> shift & 0xff);
    return out;
  };
  const std::string summed = type + data;
  const auto sum = crc32(0, reinterpret_cast<const Bytef*>(summed.data()), static_cast<uInt>(summed.size()));
  return number(static_cast<uint32_t>(data.size())) + summed + number(static_cast<uint32_t>(sum));
}

}  // namespace lockstep::testing
