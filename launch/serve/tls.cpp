// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <boost/asio/buffer.hpp>

#include "kernels/core/error.h"
#include "runtime/files/path.h"

namespace lockstep::serve {
namespace {

constexpr size_t kMostPem = 1 << 20;  // bytes of a certificate's file

}  // namespace

std::shared_ptr<boost::asio::ssl::context> tls_context(const TlsFiles& files) {
  auto context = std::make_shared<boost::asio::ssl::context>(boost::asio::ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
  boost::system::error_code error;
  // Else OpenSSL asks the terminal.
  context->set_password_callback([](size_t, boost::asio::ssl::context::password_purpose) { return ""; },
                                 error);
  const std::string certificate = read_text_file(files.certificate, kMostPem),
                    key = read_text_file(files.key, kMostPem);
  context->use_certificate_chain(boost::asio::buffer(certificate), error);
  if (error) throw Error(Exit::data, "E_TLS", "no certificate in PEM form").at("file", files.certificate);
  context->use_private_key(boost::asio::buffer(key), boost::asio::ssl::context::pem, error);
  // OpenSSL holds it against the certificate as soon as it has both.
  if (error.value() != 0 &&
      ERR_GET_REASON(static_cast<unsigned long>(error.value())) == X509_R_KEY_VALUES_MISMATCH)
    throw Error(Exit::config, "E_TLS", "this key is not the certificate's")
        .at("file", files.key)
        .at("certificate", files.certificate);
  if (error)
    throw Error(Exit::data, "E_TLS", "no private key in PEM form without a passphrase").at("file", files.key);
  return context;
}

}  // namespace lockstep::serve
