// SPDX-License-Identifier: Apache-2.0
// Loaded into a program (LD_PRELOAD), makes some of its calls slow.
//   LOCKSTEP_TEST_SYNC_SECONDS    syncing a checkpoint's model.safetensors
//   LOCKSTEP_TEST_LEAVE_SECONDS   rank 0's way out, behind MPI_Finalize
#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

void wait_as_told(const char* variable) {
  if (const char* seconds = std::getenv(variable)) ::sleep(static_cast<unsigned>(std::atoi(seconds)));
}

}  // namespace

extern "C" int fsync(int descriptor) {
  char link[64], path[4096] = "";
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  if (::readlink(link, path, sizeof path - 1) > 0 && std::strstr(path, "/checkpoints/") &&
      std::strstr(path, "/model.safetensors"))
    wait_as_told("LOCKSTEP_TEST_SYNC_SECONDS");
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

extern "C" int MPI_Finalize() {
  const auto next = reinterpret_cast<int (*)()>(::dlsym(RTLD_NEXT, "MPI_Finalize"));
  const int result = next();
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (rank && std::strcmp(rank, "0") == 0) wait_as_told("LOCKSTEP_TEST_LEAVE_SECONDS");
  return result;
}
