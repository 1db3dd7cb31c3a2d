// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/watch/symbols.h"

#include <elf.h>
#include <link.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "kernels/core/error.h"

namespace lockstep::gpu_watch {
namespace {

struct Program {
  uintptr_t base = 0;
  ThreadLocals locals;
  std::vector<std::pair<uintptr_t, uintptr_t>> constants;
};

Program this_program() {
  Program p;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* to) {
        if (info->dlpi_name[0] != 0) return 0;
        auto& found = *static_cast<Program*>(to);
        found.base = info->dlpi_addr;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& h = info->dlpi_phdr[i];
          if (h.p_type == PT_TLS) found.locals = {static_cast<std::byte*>(info->dlpi_tls_data), h.p_memsz};
          if (h.p_type == PT_LOAD && !(h.p_flags & PF_W))
            found.constants.emplace_back(info->dlpi_addr + h.p_vaddr,
                                         info->dlpi_addr + h.p_vaddr + h.p_memsz);
        }
        return 1;
      },
      &p);
  return p;
}

bool is_vocabulary(const std::string& file) {
  for (const char* name : {"kernels/gpu/simt/host_code.h", "kernels/gpu/launch.h", "kernels/core/bf16.h"})
    if (file.find(name) != std::string::npos) return true;
  return false;
}

std::string from_root(std::string place) {
  static const std::string root = "/lockstep/";  // as the build names it in debug lines (cmake/floors.cmake)
  if (place.rfind(root, 0) == 0) place.erase(0, root.size());
  return place.substr(0, place.find(" (discriminator"));
}

}  // namespace

std::vector<Source> look_up(const std::vector<CodeAddress>& addresses) {
  std::vector<Source> found(addresses.size());
  if (addresses.empty()) return found;
  const uintptr_t base = this_program().base;
  std::error_code none;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", none).string();
  std::string command = "addr2line -a -C -f -i -e '" + program + "'";
  for (const auto& a : addresses)
    command += fmt::format(" {:#x}", reinterpret_cast<uintptr_t>(a.address) - base - (a.behind_call ? 1 : 0));
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  if (!pipe) return found;
  std::string text;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe.get())) > 0;) text.append(buffer, n);

  std::istringstream lines(text);
  std::string line, place;
  size_t next = 0;
  Source* current = nullptr;
  bool settled = false;
  while (std::getline(lines, line)) {
    if (line.rfind("0x", 0) == 0) {
      current = next < found.size() ? &found[next++] : nullptr;
      settled = false;
      continue;
    }
    if (!std::getline(lines, place) || !current || settled) continue;
    *current = {line, from_root(std::filesystem::path(place).lexically_normal().string())};
    settled = !is_vocabulary(place);
  }
  return found;
}

ThreadLocals thread_locals() { return this_program().locals; }

bool is_constant(const void* address) {
  static const std::vector<std::pair<uintptr_t, uintptr_t>> ranges = this_program().constants;
  const auto a = reinterpret_cast<uintptr_t>(address);
  for (auto [begin, end] : ranges)
    if (a >= begin && a < end) return true;
  return false;
}

std::vector<SharedVariable> shared_variables() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  const auto read = [&](auto& to, uint64_t offset) {
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(reinterpret_cast<char*>(to.data()), static_cast<std::streamsize>(to.size() * sizeof(to[0])));
    return file.good();
  };
  std::vector<ElfW(Ehdr)> header(1);
  std::vector<SharedVariable> found;
  if (!read(header, 0)) return found;
  std::vector<ElfW(Shdr)> sections(header[0].e_shnum);
  if (!read(sections, header[0].e_shoff)) return found;
  for (const auto& s : sections) {
    if (s.sh_type != SHT_SYMTAB) continue;
    std::vector<ElfW(Sym)> symbols(s.sh_size / sizeof(ElfW(Sym)));
    std::vector<char> names(sections[s.sh_link].sh_size);
    if (!read(symbols, s.sh_offset) || !read(names, sections[s.sh_link].sh_offset)) return found;
    for (const auto& symbol : symbols)
      if (ELF64_ST_TYPE(symbol.st_info) == STT_TLS && symbol.st_shndx != SHN_UNDEF &&
          std::strstr(names.data() + symbol.st_name, "simt_watched"))
        found.push_back(
            {symbol.st_value, symbol.st_size, std::strncmp(names.data() + symbol.st_name, "_ZGV", 4) == 0});
  }
  return found;
}

}  // namespace lockstep::gpu_watch
