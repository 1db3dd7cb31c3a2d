// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/input_file.h"

#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "runtime/files/path.h"

namespace lockstep {
namespace {

constexpr int64_t kChunk = 256 * 1024;
constexpr int64_t kMaxDeflateRatio = 1032;  // zlib's technical notes: 258 bytes in two bits

}  // namespace

Error cannot_read(const std::string& path, int error_number) {
  if (const char* why = why_no_input(error_number))
    return Error(Exit::no_input, "E_DATA_MISSING", why).at("file", path);
  return Error(is_denied(error_number) ? Exit::no_permission : Exit::io, "E_DATA_READ",
               std::strerror(error_number))
      .at("file", path);
}

struct InputFile::Impl {
  std::string path;
  int fd = -1;
  int64_t file_size = 0, file_offset = 0, content_offset = 0;
  bool gzip = false, gzip_ended = false;
  z_stream z{};
  std::vector<uint8_t> chunk;

  explicit Impl(std::string path_) : path(std::move(path_)), fd(open_file(path, cannot_read)) {}
  ~Impl() {
    if (gzip) inflateEnd(&z);
    if (fd >= 0) ::close(fd);
  }

  int64_t read_some(void* to, int64_t n) {
    while (true) {
      const ssize_t got = ::read(fd, to, static_cast<size_t>(n));
      if (got >= 0) {
        file_offset += got;
        return got;
      }
      if (errno != EINTR) throw cannot_read(path, errno);
    }
  }

  void start(Gzip mode) {
    struct stat st {};
    if (::fstat(fd, &st) != 0) throw cannot_read(path, errno);
    file_size = st.st_size;
    uint8_t magic[2] = {};
    if (mode == Gzip::inflate && ::pread(fd, magic, 2, 0) == 2 && magic[0] == 0x1f && magic[1] == 0x8b) {
      chunk.resize(kChunk);
      LOCKSTEP_ASSERT(inflateInit2(&z, 15 + 16) == Z_OK);
      gzip = true;
    }
  }

  Error damaged(const std::string& what) const {
    return Error(Exit::data, "E_DATA_GZIP", what)
        .at("file", path)
        .at("offset", file_offset - static_cast<int64_t>(z.avail_in));
  }

  // Whether compressed bytes are there; fills the chunk where it is used up.
  bool more_input() {
    if (z.avail_in > 0) return true;
    z.next_in = chunk.data();
    z.avail_in = static_cast<uInt>(read_some(chunk.data(), kChunk));
    return z.avail_in > 0;
  }

  // Behind a member: whether another one begins (RFC 1952, section 2.2). Zeros that pad the file, as tapes have them, are
  // passed over, as gzip does.
  bool next_member() {
    bool padded = false;
    for (; more_input() && *z.next_in == 0; padded = true) ++z.next_in, --z.avail_in;
    if (!more_input()) return false;
    if (padded || *z.next_in != 0x1f)
      throw damaged("expected the end of the file after the gzip stream, found more");
    LOCKSTEP_ASSERT(inflateReset(&z) == Z_OK);
    return true;
  }

  // Up to n bytes; less only at the end of the content.
  int64_t read_content(uint8_t* to, int64_t n) {
    int64_t done = 0;
    if (!gzip) {
      while (done < n) {
        const int64_t got = read_some(to + done, n - done);
        if (got == 0) break;
        done += got;
      }
    } else {
      while (done < n && !gzip_ended) {
        if (!more_input()) throw damaged("the gzip stream ends early: the file is truncated");
        const auto room = static_cast<uInt>(std::min<int64_t>(n - done, 1 << 30));
        z.next_out = to + done;
        z.avail_out = room;
        const int status = inflate(&z, Z_NO_FLUSH);
        done += room - z.avail_out;
        if (status == Z_STREAM_END)
          gzip_ended = !next_member();
        else if (status != Z_OK)
          throw damaged(fmt::format("the gzip stream is damaged: {}", z.msg ? z.msg : zError(status)));
      }
    }
    content_offset += done;
    return done;
  }
};

InputFile::InputFile(std::string path, Gzip gzip) : impl_(std::make_unique<Impl>(std::move(path))) {
  impl_->start(gzip);
}
InputFile::~InputFile() = default;
InputFile::InputFile(InputFile&&) noexcept = default;

int64_t InputFile::read_up_to(void* to, int64_t n) {
  return impl_->read_content(static_cast<uint8_t*>(to), n);
}

void InputFile::read(void* to, int64_t n) {
  const int64_t got = impl_->read_content(static_cast<uint8_t*>(to), n);
  if (got < n)
    throw Error(
        Exit::data, "E_DATA_TRUNCATED",
        fmt::format("expected {} more bytes{}, found the end", n - got, impl_->gzip ? " of content" : ""))
        .at("file", impl_->path)
        .at("offset", impl_->content_offset);
}

void InputFile::expect_end() {
  uint8_t extra = 0;
  if (impl_->read_content(&extra, 1) != 0)
    throw Error(Exit::data, "E_DATA_OVERLONG",
                fmt::format("expected the end{}, found more", impl_->gzip ? " of the content" : ""))
        .at("file", impl_->path)
        .at("offset", impl_->content_offset - 1);
}

void InputFile::expect_left(int64_t n) {
  if (impl_->gzip) {
    std::vector<uint8_t> passed(kChunk);
    for (int64_t part = 0; n > 0; n -= part) read(passed.data(), part = std::min(n, kChunk));
    return expect_end();
  }
  const int64_t left = at_most_left();
  if (left != n)
    throw Error(Exit::data, left < n ? "E_DATA_TRUNCATED" : "E_DATA_OVERLONG",
                fmt::format("expected {} more bytes, found {}", n, left))
        .at("file", impl_->path)
        .at("offset", impl_->content_offset);
}

int64_t InputFile::at_most_left() const {
  const int64_t left = std::max<int64_t>(0, impl_->file_size - impl_->content_offset);
  return impl_->gzip ? std::min(impl_->file_size, INT64_MAX / kMaxDeflateRatio) * kMaxDeflateRatio : left;
}
int64_t InputFile::offset() const { return impl_->content_offset; }
const std::string& InputFile::path() const { return impl_->path; }

}  // namespace lockstep
