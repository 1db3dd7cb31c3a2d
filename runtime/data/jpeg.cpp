#include <cstdio>
// jpeglib.h needs stdio.h before it.
#include <jpeglib.h>

#include <csetjmp>

#include "kernels/core/error.h"
#include "runtime/data/codec.h"

namespace lockstep {
namespace {

// Everything that lives across libjpeg's longjmp; it jumps over C frames only.
struct Reader {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors{};
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = "";
  std::vector<uint8_t> row;

  Reader() = default;
  ~Reader() { jpeg_destroy_decompress(&jpeg); }
  Reader(const Reader&) = delete;
};

void on_exit(j_common_ptr info) {
  auto* reader = static_cast<Reader*>(info->client_data);
  info->err->format_message(info, reader->message);
  std::longjmp(reader->jump, 1);
}
// Below zero: a warning, which in libjpeg is damage that it would paper over.
void on_message(j_common_ptr info, int level) {
  if (level < 0) on_exit(info);
}

bool start(Reader& r, std::span<const uint8_t> bytes) {
  r.jpeg.err = jpeg_std_error(&r.errors);
  r.jpeg.client_data = &r;
  r.errors.error_exit = on_exit;
  r.errors.emit_message = on_message;
  if (setjmp(r.jump)) return false;
  jpeg_create_decompress(&r.jpeg);
  jpeg_mem_src(&r.jpeg, bytes.data(), bytes.size());
  jpeg_read_header(&r.jpeg, TRUE);
  r.jpeg.out_color_space = r.jpeg.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  return true;
}

bool decode(Reader& r, Image& image) {
  if (setjmp(r.jump)) return false;
  jpeg_start_decompress(&r.jpeg);
  const int64_t plane = image.height * image.width;
  while (r.jpeg.output_scanline < r.jpeg.output_height) {
    const int64_t y = r.jpeg.output_scanline;
    JSAMPROW row = r.row.data();
    jpeg_read_scanlines(&r.jpeg, &row, 1);
    for (int64_t c = 0; c < image.channels; ++c) {
      uint8_t* to = image.pixels.data() + c * plane + y * image.width;
      for (int64_t x = 0; x < image.width; ++x) to[x] = row[x * image.channels + c];
    }
  }
  jpeg_finish_decompress(&r.jpeg);
  return true;
}

Error damaged(const std::string& path, const Reader& r, std::span<const uint8_t> bytes) {
  const int64_t left = r.jpeg.src ? static_cast<int64_t>(r.jpeg.src->bytes_in_buffer) : 0;
  return Error(Exit::data, "E_IMAGE_JPEG", fmt::format("the JPEG file is damaged: {}", r.message))
      .at("file", path)
      .at("offset", std::max<int64_t>(0, static_cast<int64_t>(bytes.size()) - left));
}

ImageShape checked_shape(const std::string& path, const Reader& r) {
  if (r.jpeg.num_components != 1 && r.jpeg.num_components != 3)
    throw Error(Exit::data, "E_IMAGE_CHANNELS",
                fmt::format("expected a grey or RGB JPEG, found {} components (CMYK)", r.jpeg.num_components))
        .at("file", path)
        .hint("convert it to RGB");
  return {r.jpeg.num_components, r.jpeg.image_height, r.jpeg.image_width};
}

}  // namespace

ImageShape jpeg_shape(const std::string& path, std::span<const uint8_t> bytes) {
  Reader r;
  if (!start(r, bytes)) throw damaged(path, r, bytes);
  return checked_shape(path, r);
}

Image decode_jpeg(const std::string& path, std::span<const uint8_t> bytes) {
  Reader r;
  if (!start(r, bytes)) throw damaged(path, r, bytes);
  const auto [channels, height, width] = checked_shape(path, r);
  // A block of 8x8 takes a bit at least, and a component may be subsampled 4 times either way.
  if (height * width / (64 * 16 * 8) > static_cast<int64_t>(bytes.size()))
    throw Error(
        Exit::data, "E_IMAGE_JPEG",
        fmt::format("{} bytes cannot hold the {}x{} pixels of the header", bytes.size(), height, width))
        .at("file", path);
  Image image{channels, height, width, std::vector<uint8_t>(static_cast<size_t>(channels * height * width))};
  r.row.resize(static_cast<size_t>(channels * width));
  if (!decode(r, image)) throw damaged(path, r, bytes);
  return image;
}

}  // namespace lockstep
