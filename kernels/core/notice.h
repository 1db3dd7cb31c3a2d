// SPDX-License-Identifier: Apache-2.0
// What kernels have to say to whoever reads the log: that a library's algorithm failed and another took its
// place, or why a library declines. Each text once a process.
#pragma once

#include <functional>
#include <string>

namespace lockstep {

void notice_once(const std::string& text);
// Who gets them; at first those that came before. Called from any thread, one at a time.
void set_notices(std::function<void(const std::string&)> sink);

}  // namespace lockstep
