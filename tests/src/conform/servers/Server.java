import java.io.ByteArrayInputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.List;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SNIMatcher;
import javax.net.ssl.SNIServerName;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

/** TLS server on Java's own stack: says which server name each client port sent. */
public class Server {
    public static void main(String[] args) throws Exception {
        SSLContext context = context(Path.of(args[0]));
        SSLServerSocket listener =
                (SSLServerSocket) context.getServerSocketFactory().createServerSocket();
        listener.bind(new InetSocketAddress("::", Integer.parseInt(args[1])), 512);
        while (true) {
            SSLSocket socket = (SSLSocket) listener.accept();
            Thread thread = new Thread(() -> serve(socket));
            thread.setDaemon(true);
            thread.start();
        }
    }

    private static SSLContext context(Path directory) throws Exception {
        byte[] pem = Files.readAllBytes(directory.resolve("cert.pem"));
        Certificate certificate =
                CertificateFactory.getInstance("X.509")
                        .generateCertificate(new ByteArrayInputStream(pem));
        String key = Files.readString(directory.resolve("key.pem"));
        byte[] der = Base64.getMimeDecoder().decode(key.replaceAll("-----[A-Z ]+-----", ""));
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        store.setKeyEntry(
                "key",
                KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(der)),
                new char[0],
                new Certificate[] {certificate});
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(store, new char[0]);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), null, null);
        return context;
    }

    private static void serve(SSLSocket socket) {
        try (socket) {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setSNIMatchers(
                    List.of(
                            new SNIMatcher(0) {
                                @Override
                                public boolean matches(SNIServerName name) {
                                    byte[] bytes = name.getEncoded();
                                    String shown = new String(bytes, StandardCharsets.ISO_8859_1);
                                    System.out.println(socket.getPort() + " " + shown);
                                    return true;
                                }
                            }));
            socket.setSSLParameters(parameters);
            socket.startHandshake();
            socket.getInputStream().read();
        } catch (Exception refused) {
            // The client sees the alert.
        }
    }
}
