import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.List;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * Asks an address for names over TLS, each on a connection of its own: Fetch.java ADDRESS CA
 * NAME/MILLISECONDS...
 */
public class Fetch {
    public static void main(String[] args) throws Exception {
        SSLContext context = trusting(Path.of(args[1]));
        List<Thread> threads = new ArrayList<>();
        for (String wanted : List.of(args).subList(2, args.length)) {
            String[] parts = wanted.split("/");
            int limit = Integer.parseInt(parts[1]);
            threads.add(new Thread(() -> tell(context, args[0], parts[0], limit)));
        }
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
    }

    private static SSLContext trusting(Path authority) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        store.setCertificateEntry(
                "authority",
                CertificateFactory.getInstance("X.509")
                        .generateCertificate(
                                new ByteArrayInputStream(Files.readAllBytes(authority))));
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    private static void tell(SSLContext context, String address, String name, int limit) {
        try {
            if (ask(context, address, name, limit).contains("served " + name + "\n")) {
                System.out.println(name);
            }
        } catch (IOException error) {
            System.err.println(name + ": " + error);
        }
    }

    private static String ask(SSLContext context, String address, String name, int limit)
            throws IOException {
        try (Socket plain = new Socket()) {
            plain.connect(new InetSocketAddress(address, 443), limit);
            plain.setSoTimeout(limit);
            try (SSLSocket tls =
                    (SSLSocket) context.getSocketFactory().createSocket(plain, name, 443, true)) {
                String request =
                        "GET / HTTP/1.1\r\nHost: " + name + "\r\nConnection: close\r\n\r\n";
                tls.getOutputStream().write(request.getBytes(StandardCharsets.US_ASCII));
                return new String(tls.getInputStream().readAllBytes(), StandardCharsets.US_ASCII);
            }
        }
    }
}
