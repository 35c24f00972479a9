"""Names of files that hold secrets, as patterns of ``.gitignore``: what scanners for leaked credentials look for by name.

Gathered from the path rules of such scanners (gitleaks, shhgit, gitrob) and from where well-known tools keep what they log in with.
Names that source code commonly has (``secrets.py``, a package ``credentials/``) are not here: a package without them would not run.
"""

from __future__ import annotations

_FILES = (
    "credentials", "passwd", "shadow", "htpasswd", "kubeconfig", "*_rsa", "*_dsa", "*_ecdsa", "*_ed25519", "*_history"
)  # fmt: skip

"""Directories of these names are packages as likely as not."""
_KEYS = (
    "*.pem", "*.key", "*.ppk", "*.pkcs12", "*.p12", "*.pfx", "*.p8", "*.p7b", "*.pkcs8", "*.jks", "*.jceks", "*.keystore", "*.bks",
    "*.truststore", "*.asc", "*.gpg", "*.pgp", "*.agekey", "*.keytab", "*.kdb", "*.kdbx", "*.kwallet", "*.agilekeychain/", "*.keychain",
    "*.keychain-db", "*.opvault/", "*.psafe3", "*.ovpn", "*.mobileprovision", "*.cscfg", "*.tblk", "*.rdp", "*.pcap", "*.jwk", "*.jwks",
    "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "id_xmss*", "ssh_host_*_key", "secring.*", "keys.txt.age",
)  # fmt: skip
_ENVIRONMENTS = (
    "*.env", ".env*", ".envrc", ".secrets", ".secret", ".vault-token", ".vault_pass*", ".vault_password*", "vault.y*ml", "*.vault",
)  # fmt: skip
_NAMED_SO = (
    "secrets.y*ml", "secrets.json", "secrets.toml", "secrets.ini", "secrets.env", "secrets.txt", "secrets.enc*", "*.secrets.y*ml",
    "secret.y*ml", "secret.json", "secret.toml", "secret.txt", "credentials.json", "credentials.y*ml", "credentials.toml",
    "credentials.ini", "credentials.xml", "credentials.csv", "credentials.db", "*.credentials", "*_credentials.json",
    "*-credentials.json", "passwords.txt", "password.txt", ".htpasswd", "*.htpasswd", ".pgpass", "pgpass.conf", ".my.cnf",
    ".mylogin.cnf", "token.json", "tokens.json", "token.txt", "token.pickle", "apikey*.txt", "api_key*.txt", "oauth*.json", ".oauth*",
    "otr.private_key",
)  # fmt: skip
_CLOUDS = (
    ".aws/", "aws-credentials*", "accessKeys.csv", "*accessKeys.csv", "rootkey.csv", ".boto", ".s3cfg", ".rclone.conf", "rclone.conf",
    ".azure/", "azureProfile.json", "accessTokens.json", "msal_token_cache.*", "*.publishsettings", "*.azureauth",
    "local.settings.json", ".config/gcloud/", "application_default_credentials.json", "client_secret*.json", "client-secret*.json",
    "service_account*.json", "service-account*.json", "serviceaccount*.json", "*serviceAccount*.json", "*service-account*.json",
    "*service_account*.json", "gcp-key*.json", "google-services.json", "GoogleService-Info.plist", "firebase-adminsdk*.json",
    "*firebase-adminsdk*.json", ".oci/", ".bluemix/", ".doctl/", ".config/doctl/", ".heroku/", ".fly/", ".netlify/", ".vercel/",
    ".cloudflared/", ".wrangler/", ".linode-cli", ".scwrc", ".openrc", "*-openrc.sh", "clouds.y*ml", ".edgerc",
)  # fmt: skip
_CLUSTERS = (
    ".kube/", "kubeconfig.*", "*.kubeconfig", "kube.config", "admin.conf", ".docker/", ".dockercfg", ".dockerconfigjson",
    "docker-config.json", ".helm/", "helm-secrets*", "*.tfstate", "*.tfstate.*", "*.tfvars", "*.tfvars.json", ".terraform/",
    ".terraformrc", "terraform.rc", ".terraform.d/", ".pulumi/", "Pulumi.*.secrets.y*ml", ".vagrant/", ".chef/", "knife.rb", "*.eyaml",
    ".sops.y*ml", "age.key", ".age/",
)  # fmt: skip
_TOOLS = (
    ".netrc", "_netrc", ".git-credentials", ".gitcredentials", ".config/gh/", ".config/hub", ".pypirc", "pip.conf", ".pip/", ".condarc",
    "uv.toml.secret", ".npmrc", ".yarnrc", ".yarnrc.yml", "auth.json", ".composer/", ".gem/", ".bundle/", ".m2/",
    "settings-security.xml", ".gradle/", "gradle.properties", ".cargo/", ".nuget/", ".hf_token", ".huggingface/", ".kaggle/",
    "kaggle.json", ".wandb_key", ".modal.toml", ".databrickscfg", ".snowsql/", ".dbt/", ".streamlit/secrets.toml", ".jupyter/",
    "jupyter_cookie_secret", ".ssh/", ".gnupg/", ".password-store/", ".lpass/", ".1password/", ".bw/", ".esmtprc", ".msmtprc",
    ".muttrc", ".fetchmailrc", ".ftpconfig", "sftp-config.json", ".remote-sync.json", "ventrilo_srv.ini", "filezilla.xml",
    "recentservers.xml", ".tugboat", ".trc", ".irssi/", ".purple/", ".slack-token", ".twilio*", ".stripe/", ".ngrok2/", "ngrok.yml",
    ".*_history", ".dbshell", "proftpdpasswd", "robomongo.json", "LocalSettings.php", "wp-config.php", "wallet.dat", "*.wallet",
    "jenkins.plugins.publish_over_ssh.BapSshPublisherPlugin.xml", "master.key", "hudson.util.Secret",
)  # fmt: skip

SECRETS = (*_FILES, *(f"!{name}/" for name in _FILES), *_KEYS, *_ENVIRONMENTS, *_NAMED_SO, *_CLOUDS, *_CLUSTERS, *_TOOLS)
"""Left out of every package, and named when they are; only an explicit ``include`` brings one in."""
