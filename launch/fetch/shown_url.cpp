// SPDX-License-Identifier: Apache-2.0
#include "launch/fetch/shown_url.h"

namespace lockstep {

std::string shown_url(std::string_view url) {
  const size_t scheme = url.find("://"), at = url.rfind('@');
  const size_t begin = scheme == std::string_view::npos ? 0 : scheme + 3;
  if (at == std::string_view::npos || at < begin) return std::string(url);
  return std::string(url.substr(0, begin)) + "***" + std::string(url.substr(at));
}

}  // namespace lockstep
