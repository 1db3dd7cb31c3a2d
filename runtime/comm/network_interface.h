// SPDX-License-Identifier: Apache-2.0
// By which network the ranks of several hosts reach each other.
#pragma once

#include <string>

namespace lockstep {

// The interface of this host that is called so ("eth0") or has an address in this subnet ("192.168.1.0/24"). Error config (78)
// where there is none: the host and its interfaces are named.
std::string find_network_interface(const std::string& name_or_subnet);
// MPI and NCCL are to use no other. Before they are started; what the environment says already stays.
void use_network_interface(const std::string& name_or_subnet);

}  // namespace lockstep
