// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/shared_region.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <optional>
#include <random>
#include <utility>

#include "runtime/comm/mpi_world.h"

namespace lockstep {
namespace {

constexpr int kPatienceMs = 10'000;  // for what another rank of this host is about to send

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

bool becomes_readable(int fd) {
  pollfd p{fd, POLLIN, 0};
  return ::poll(&p, 1, kPatienceMs) == 1;
}

// An address in the abstract namespace: no file, gone with the socket.
struct Address {
  sockaddr_un value{};
  socklen_t length = 0;
  explicit Address(uint64_t token) {
    value.sun_family = AF_UNIX;
    const int n = std::snprintf(value.sun_path + 1, sizeof value.sun_path - 1, "lockstep-%016llx",
                                static_cast<unsigned long long>(token));
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + static_cast<size_t>(n));
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&value); }
};

// A message of one byte that carries the descriptor (unix(7), SCM_RIGHTS).
struct Message {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
  Message() {
    header.msg_iov = &part, header.msg_iovlen = 1;
    header.msg_control = control.data(), header.msg_controllen = control.size();
  }
};

bool send_descriptor(int socket, int fd) {
  Message m;
  cmsghdr* c = CMSG_FIRSTHDR(&m.header);
  c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
  return ::sendmsg(socket, &m.header, MSG_NOSIGNAL) == 1;
}

Descriptor receive_descriptor(int socket) {
  Message m;
  if (!becomes_readable(socket) || ::recvmsg(socket, &m.header, MSG_CMSG_CLOEXEC) != 1) return Descriptor();
  const cmsghdr* c = CMSG_FIRSTHDR(&m.header);
  if (!c || c->cmsg_type != SCM_RIGHTS) return Descriptor();
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
  return Descriptor(fd);
}

// Whether the other end runs as the same user.
bool trusted(int socket) {
  ucred peer{};
  socklen_t length = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == ::getuid();
}

Descriptor make_file(int64_t bytes) {
  Descriptor file(::memfd_create("lockstep", MFD_CLOEXEC));
  if (!file || ::ftruncate(file.get(), bytes) != 0 || ::posix_fallocate(file.get(), 0, bytes) != 0)
    return Descriptor();
  return file;
}

// Rank 0's part: a file, and a socket where the others get it.
struct Offer {
  Descriptor file, socket;
  uint64_t token = 0;  // 0: there is none

  explicit Offer(int64_t bytes, int others) : file(make_file(bytes)) {
    if (!file) return;
    socket = Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    std::random_device random;
    const uint64_t drawn = (uint64_t{random()} << 32 | random()) | 1;
    const Address address(drawn);
    if (socket && ::bind(socket.get(), address.get(), address.length) == 0 &&
        ::listen(socket.get(), others) == 0)
      token = drawn;
  }
  bool hand_out(int others) const {
    for (int i = 0; i < others; ++i) {
      if (!becomes_readable(socket.get())) return false;
      const Descriptor peer(::accept4(socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!peer || !trusted(peer.get())) {
        --i;  // somebody else's knock
        continue;
      }
      if (!send_descriptor(peer.get(), file.get())) return false;
    }
    return true;
  }
};

// Another rank's part: its end of the socket. Nobody needs to have accepted it yet.
Descriptor connect_to(uint64_t token) {
  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const Address address(token);
  if (!socket || ::connect(socket.get(), address.get(), address.length) != 0 || !trusted(socket.get()))
    return Descriptor();
  return socket;
}

}  // namespace

std::shared_ptr<SharedRegion> SharedRegion::create(MPI_Comm host, int64_t bytes) {
  int rank = 0, size = 1;
  MPI_Comm_rank(host, &rank);
  MPI_Comm_size(host, &size);
  std::optional<Offer> offer;
  if (rank == 0) offer.emplace(bytes, size);
  uint64_t token = offer ? offer->token : 0;
  MPI_Bcast(&token, 1, MPI_UINT64_T, 0, host);
  Descriptor socket;
  if (rank != 0 && token != 0) socket = connect_to(token);
  // Ranks that MPI takes for one host's may still lack a way between them: containers, network namespaces.
  if (!all_agree(host, rank == 0 ? token != 0 : static_cast<bool>(socket))) return nullptr;
  Descriptor file;
  if (rank != 0)
    file = receive_descriptor(socket.get());
  else if (offer->hand_out(size - 1))
    file = std::move(offer->file);
  void* data = MAP_FAILED;
  if (file)
    data = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  const bool mapped = data != MAP_FAILED;
  std::shared_ptr<SharedRegion> region;
  if (mapped) {
    ::madvise(data, static_cast<size_t>(bytes),
              MADV_HUGEPAGE);  // where the system does that for shared memory
    region.reset(new SharedRegion(static_cast<std::byte*>(data), bytes));
  }
  return all_agree(host, mapped) ? region : nullptr;
}

SharedRegion::~SharedRegion() { ::munmap(data_, static_cast<size_t>(bytes_)); }

}  // namespace lockstep
