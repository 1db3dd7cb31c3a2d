// SPDX-License-Identifier: Apache-2.0
// What connections over TLS begin with.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>

#include "launch/serve/http.h"

namespace lockstep::serve {

// TLS 1.2 and 1.3. Errors: those of HttpServer's files.
std::shared_ptr<boost::asio::ssl::context> tls_context(const TlsFiles& files);

}  // namespace lockstep::serve
