// SPDX-License-Identifier: Apache-2.0
#include "runtime/files/build_id.h"

#include <elf.h>
#include <fmt/format.h>
#include <link.h>

#include <cstring>

namespace lockstep {

std::string build_id() {
  std::string id;
  // The program itself comes first.
  const auto look = [](dl_phdr_info* info, size_t, void* found) {
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const auto& segment = info->dlpi_phdr[i];
      if (segment.p_type != PT_NOTE) continue;
      const auto* at = reinterpret_cast<const unsigned char*>(info->dlpi_addr + segment.p_vaddr);
      const auto* end = at + segment.p_memsz;
      const auto padded = [&](size_t n) {
        return (n + segment.p_align - 1) / segment.p_align * segment.p_align;
      };
      while (at + sizeof(ElfW(Nhdr)) <= end) {
        ElfW(Nhdr) note;
        std::memcpy(&note, at, sizeof note);
        const auto* name = at + sizeof note;
        const auto* bytes = name + padded(note.n_namesz);
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0)
          for (size_t b = 0; b < note.n_descsz; ++b)
            *static_cast<std::string*>(found) += fmt::format("{:02x}", bytes[b]);
        at = bytes + padded(note.n_descsz);
      }
    }
    return 1;
  };
  ::dl_iterate_phdr(look, &id);
  return id;
}

}  // namespace lockstep
